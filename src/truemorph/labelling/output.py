"""Where labels are written: one table that appears whole or not at all, and a list of what failed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from truemorph.catalogs.tables import CatalogTable, write_table


class LabelWriter:
    """Stream batches into a Parquet file, or gather them for another format.

    Parameters
    ----------
    path : Path
        The extension names the format.
    metadata : dict
        Travels in the file.
    """

    def __init__(self, path: Path, metadata: dict[str, Any]) -> None:
        self.path = path
        self.metadata = metadata
        self._partial = path.with_name(f".{os.getpid()}.{path.name}")
        self._writer: pq.ParquetWriter | None = None
        self._gathered: list[pl.DataFrame] = []

    def __enter__(self) -> LabelWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, batch: pl.DataFrame) -> None:
        """Add a batch of rows."""
        if self.path.suffix != ".parquet":
            self._gathered.append(batch)
            return
        arrow = batch.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            note = {b"truemorph": json.dumps({**self.metadata, "units": {}}).encode()}
            self._writer = pq.ParquetWriter(self._partial, arrow.schema.with_metadata(note))
        self._writer.write_table(arrow.cast(self._writer.schema))

    def finish(self) -> None:
        """Put the table in its place."""
        if self._writer is not None:
            self._writer.close()
            os.replace(self._partial, self.path)
        else:
            write_table(CatalogTable(pl.concat(self._gathered), metadata=self.metadata), self.path)

    def list_problems(self, problems: list[tuple[Any, str]]) -> None:
        """List the rows that could not be labelled, and why, beside the table."""
        listed = pl.DataFrame(
            {"object_id": [str(one) for one, _ in problems], "reason": [why for _, why in problems]},
            schema={"object_id": pl.String, "reason": pl.String},
        )
        write_table(CatalogTable(listed), self.path.with_name(f"{self.path.stem}.problems.csv"))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None and self._writer.is_open:
            self._writer.close()
        self._partial.unlink(missing_ok=True)
