"""Bias curves T(α): what they share, with a formula, by regression, of paths; and the list of families."""
