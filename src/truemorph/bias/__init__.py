"""Labelling bias: how labels flip with resolution (T(α)), its estimation, and the metrics CV14 and CV18."""
