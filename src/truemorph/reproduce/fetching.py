"""What the folder of data lacks, fetched from the archives."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from truemorph.errors import TruemorphError
from truemorph.reproduce.catalogue import column_names
from truemorph.reproduce.options import Inputs, ReproduceOptions
from truemorph.reproduce.stages import DONE, FAILED, Outcome


def lacking(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Archives that have what the inputs lack, with options of `fetch`.

    SDSS is asked for the galaxies of GZ2's tables, so that comes first.
    """
    out: dict[str, dict[str, Any]] = {}
    pictures = inputs.images is None and inputs.image_table is None
    if inputs.table is None or inputs.hart is None or pictures:
        out["gz2"] = {"images": pictures}
    if inputs.photometry is None and (inputs.radius is None or inputs.psf_fwhm is None):
        out["sdss"] = {}
    known = set() if inputs.table is None else set(column_names(Path(inputs.table)))
    if inputs.sersic_table is None and not known.issuperset((*inputs.features, inputs.sersic_index)):
        out["simard"] = {}
    return out


def fetch_missing(data: Path, inputs: Inputs, options: ReproduceOptions) -> list[Outcome]:
    """Fetch the archives of which something is lacking, into folders named after them; each goes on where it was.

    One that can't be fetched doesn't stop the others.
    """
    from truemorph.archives.fetch import fetch

    outcomes = []
    for name, chosen in lacking(inputs).items():
        title, status, text, began = f"truemorph fetch {name}", DONE, "", time.perf_counter()
        print(f"reproduce: {title}", file=sys.stderr)
        try:
            fetch(name, data / name, addresses_from=options.addresses, per_second=options.rate, **chosen)
        except TruemorphError as problem:
            status, text = FAILED, str(problem)
        seconds = round(time.perf_counter() - began, 2)
        outcomes.append(Outcome(f"fetch-{name}", title, status, text, seconds=seconds))
        print(f"reproduce: {title}: {status}{': ' + text if text else ''}", file=sys.stderr)
    return outcomes


def fetch_hst(folder: Path, positions: Path, options: ReproduceOptions) -> None:
    """Fetch HST's images of the galaxies in a table.

    Raises
    ------
    TruemorphError
        If they can't be fetched.
    """
    from truemorph.archives.fetch import fetch

    fetch("hst", folder, addresses_from=options.addresses, per_second=options.rate, positions=positions)
