"""truemorph cite: what to cite."""

from __future__ import annotations

from truemorph.arguments import validated
from truemorph.citation import BIBTEX
from truemorph.results import PlainResult


@validated
def cite() -> PlainResult:
    """Print BibTeX of the papers and the software to cite.

    Example: truemorph cite > truemorph.bib

    Returns
    -------
    PlainResult
        BibTeX.

    Examples
    --------
    >>> "10.3847/1538-3881/aae9f4" in cite().summary()
    True
    """
    return PlainResult(BIBTEX, {"bibtex": BIBTEX})
