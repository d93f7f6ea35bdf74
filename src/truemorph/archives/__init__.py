"""Public archives: fetch the tables and images of Galaxy Zoo 2, SDSS DR7, Simard et al. (2011) and HST.

Each archive is one module, listed in `fetch.py`, with its addresses in `addresses.toml`. `http.py` transfers files,
`queries.py` runs long queries in batches, and `provenance.py` records the origin of each file.
"""
