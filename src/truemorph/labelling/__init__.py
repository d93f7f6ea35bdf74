"""Labelling: p(y | x) for new images, and the posterior for galaxies that already have an observed label."""
