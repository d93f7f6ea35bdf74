"""truemorph cite: what to cite."""

from __future__ import annotations

from truemorph.citation import BIBTEX, entries
from truemorph.results import PlainResult


def cite() -> PlainResult:
    """Print BibTeX of the papers and the software to cite.

    Example: truemorph cite > truemorph.bib

    Returns
    -------
    PlainResult
        BibTeX as text, and the fields of each entry by its key.

    Examples
    --------
    >>> print(cite().to_dict()["cabreravives2018"]["doi"])
    10.3847/1538-3881/aae9f4
    """
    return PlainResult(BIBTEX, entries())
