"""truemorph cite: what to cite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from truemorph.citation import BIBTEX, entries
from truemorph.findings import Finding
from truemorph.results import Result, quantity_table


@dataclass(frozen=True, repr=False)
class Citation(Result):
    """What to cite: the paper of the method, the paper of the bias metric CV18, and the software."""

    entries: dict[str, dict[str, str]]  # type and fields by key of BibTeX
    findings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return BibTeX."""
        return BIBTEX

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of each entry by its key, for JSON."""
        return self.entries

    def to_table(self) -> Any:
        """Return a table of one row an entry."""
        about = {"author": "authors", "title": "title", "doi": "digital object identifier"}
        rows = self.entries.values()
        columns = {name: ([row.get(name, "") for row in rows], "", text) for name, text in about.items()}
        return quantity_table({"key": (list(self.entries), "", "key of BibTeX"), **columns})


def cite() -> Citation:
    """Print BibTeX of the papers and the software to cite.

    Example: truemorph cite > truemorph.bib

    Returns
    -------
    Citation

    Examples
    --------
    >>> print(cite().to_dict()["cabreravives2018"]["doi"])
    10.3847/1538-3881/aae9f4
    """
    return Citation(entries())
