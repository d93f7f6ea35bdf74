"""Regressions on gold labels: of classes, nested along the gates of a question, and of T(α) of paths."""
