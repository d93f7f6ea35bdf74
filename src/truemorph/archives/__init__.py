"""Public archives: one module each, listed in `fetch.py`, with addresses in `addresses.toml`."""
