"""Labelling bias: the bias curve T(α), its estimation, and the metrics CV14 and CV18."""
