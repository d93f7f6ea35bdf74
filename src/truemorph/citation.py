"""What to cite, as BibTeX: one source for `truemorph cite`, the report and the documentation."""

from __future__ import annotations

from truemorph._version import __version__

# Key: type of the entry, and its fields in BibTeX.
ENTRIES: dict[str, tuple[str, dict[str, str]]] = {
    "medinarosales_debiasing": (
        "article",
        {
            "author": "Medina-Rosales, Esteban and Cabrera-Vives, Guillermo and Miller, Christopher J.",
            "title": "{Mitigating Bias in Deep Learning: Training Unbiased Models on Biased Data for the Morphological "
            "Classification of Galaxies}",
            "journal": "Monthly Notices of the Royal Astronomical Society",
            "year": "2023",
            "eprint": "2308.11007",
            "archivePrefix": "arXiv",
            "primaryClass": "astro-ph.GA",
            "doi": "10.48550/arXiv.2308.11007",
        },
    ),
    "cabreravives2018": (
        "article",
        {
            "author": "Cabrera-Vives, Guillermo and Miller, Christopher J. and Schneider, Jeff",
            "title": "{Systematic Labeling Bias in Galaxy Morphologies}",
            "journal": "The Astronomical Journal",
            "year": "2018",
            "volume": "156",
            "number": "6",
            "pages": "284",
            "doi": "10.3847/1538-3881/aae9f4",
        },
    ),
    "truemorph": (
        "software",
        {
            "author": "{The truemorph developers}",
            "title": "{truemorph: unbiased galaxy morphologies from biased labels}",
            "version": __version__,
        },
    ),
}


def bibtex() -> str:
    """Return the entries as BibTeX.

    Examples
    --------
    >>> print(bibtex().splitlines()[0])
    @article{medinarosales_debiasing,
    """
    entries = []
    for key, (kind, fields) in ENTRIES.items():
        lines = ",\n".join(f"  {name:13s} = {{{value}}}" for name, value in fields.items())
        entries.append(f"@{kind}{{{key},\n{lines}\n}}")
    return "\n".join(entries)
