"""Classifiers trained through T(α): DCV14 (logistic regression) and DDB (a deep network)."""
