"""Checks of an estimate: selection of gold labels, calibration, families, drift of class fractions."""
