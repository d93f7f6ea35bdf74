"""What the folder of data lacks, fetched from the archives."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from truemorph.errors import TruemorphError
from truemorph.workflow.reproducing.options import Inputs, ReproduceOptions
from truemorph.workflow.reproducing.stages import DONE, FAILED, Outcome

# Which archive has what; SDSS is asked for the galaxies of GZ2's tables, so that comes first.
_ARCHIVES = {"table": "gz2", "hart": "gz2", "image_table": "gz2", "photometry": "sdss", "sersic_table": "simard"}


def fetch_missing(data: Path, inputs: Inputs, options: ReproduceOptions) -> list[Outcome]:
    """Fetch the archives of which something is lacking, into folders named after them; each goes on where it was.

    One that can't be fetched doesn't stop the others.
    """
    from truemorph.catalogs.archives.fetch import fetch

    outcomes = []
    for name in dict.fromkeys(archive for field, archive in _ARCHIVES.items() if getattr(inputs, field) is None):
        title, status, text, began = f"truemorph fetch {name}", DONE, "", time.perf_counter()
        print(f"reproduce: {title}", file=sys.stderr)
        try:
            fetch(name, data / name, addresses_from=options.addresses, per_second=options.rate)
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
    from truemorph.catalogs.archives.fetch import fetch

    fetch("hst", folder, addresses_from=options.addresses, per_second=options.rate, positions=positions)
