"""Explanations of networks: Grad-CAM maps, their radial profiles, and a sanity check with random weights."""
