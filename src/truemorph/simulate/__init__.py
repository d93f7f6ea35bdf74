"""Galaxies of known truth: a population, its images, and annotators whose labels flip with α."""
