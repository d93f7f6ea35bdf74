"""Public archives: fetch the tables and images of Galaxy Zoo 2, SDSS DR7, Simard et al. (2011) and HST.

An archive is one module of this room, named in `fetch.py`, with its addresses in `addresses.toml`. `http.py` has what
all of them need to talk to a server, `queries.py` what those need that are queried; `provenance.py` records where each
file came from.
"""
