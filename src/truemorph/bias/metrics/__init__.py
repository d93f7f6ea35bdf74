"""Bias metrics of labels (CV14, CV18), and scores against known classes."""
