"""Catalogues: tables in and out, votes to labels, resolution α, balanced samples and splits."""
