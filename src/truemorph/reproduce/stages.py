"""What a stage is, and what is known while stages are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.catalogs.catalogue import image_folder, read_catalogue
from truemorph.io import read_json
from truemorph.reproduce.fingerprints import Fingerprints
from truemorph.reproduce.options import Inputs, ReproduceOptions
from truemorph.tables import CatalogTable, frame_hash

DONE, CACHED, LACKS, FAILED, LEFT_OUT, TO_DO = "done", "cached", "lacks", "failed", "left out", "to do"
CATALOGUE, TEST_ROWS = "gz2b.parquet", "test.parquet"


@dataclass(frozen=True)
class Lacks:
    """What a stage has not, and how to get it."""

    what: str
    how: str

    def __str__(self) -> str:
        return f"{self.what}: {self.how}"


@dataclass(frozen=True)
class Outcome:
    """What became of a stage.

    Attributes
    ----------
    name, title : str
    status : str
        "done" (now), "cached" (made before), "lacks", "failed", "left out" (not asked for) or "to do".
    text : str
        What is lacking, or what failed.
    key : str
        Hash of all that the result follows from.
    folder : Path, optional
    result : dict
    seconds : float
        That making it took.
    """

    name: str
    title: str
    status: str
    text: str = ""
    key: str = ""
    folder: Path | None = None
    result: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def there(self) -> bool:
        """Whether there is a result."""
        return self.status in (DONE, CACHED)

    def file(self, name: str) -> Path:
        """A file of the stage."""
        assert self.folder is not None
        return self.folder / name


@dataclass
class Work:
    """What stages are made from, and those that are.

    Attributes
    ----------
    data, out : Path
        Folder of data, and the folder that is written.
    inputs : Inputs
    options : ReproduceOptions
    outcomes : dict of Outcome
        By stage, in the order in which they came.
    """

    data: Path
    out: Path
    inputs: Inputs
    options: ReproduceOptions
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hashes = Fingerprints(self.out / "stages" / "fingerprints.json")

    def have(self, stage: str) -> bool:
        """Whether a stage has a result."""
        return stage in self.outcomes and self.outcomes[stage].there

    def result(self, stage: str) -> dict[str, Any]:
        """What a stage found."""
        return self.outcomes[stage].result

    def keys(self, stages: Iterable[str]) -> dict[str, str]:
        """Keys of the stages that have a result."""
        return {name: self.outcomes[name].key for name in stages if self.have(name)}

    def once(self, what: str, make: Callable[[], Any]) -> Any:
        """Make something the first time it is asked for."""
        if what not in self.memo:
            self.memo[what] = make()
        return self.memo[what]

    def catalogue(self, stage: str = "catalogue", file: str = CATALOGUE) -> CatalogTable:
        """A catalogue that a stage wrote."""
        path = self.outcomes[stage].file(file)
        found: CatalogTable = self.once(f"catalogue {path}", lambda: read_catalogue(path))
        return found

    def rows_digest(self, frame: pl.DataFrame, columns: Iterable[str]) -> str:
        """Hash of those of the columns that the galaxies have."""
        return frame_hash(frame.select(name for name in columns if name in frame.columns))[:16]

    def images_digest(self) -> str:
        """Hash of the images of the sample; empty without any."""
        table = self.catalogue()
        if not table.frame["image"].count():
            return ""
        root = image_folder(table)
        found: str = self.once("images", lambda: self.hashes.of_many(root, table.frame["image"]))
        return found


@dataclass(frozen=True)
class Stage:
    """A step of the experiment.

    Attributes
    ----------
    name : str
        Letters, digits and hyphens.
    title : str
    follows_from : callable
        All that the result follows from, as plain data; or what is lacking.
    make : callable
        Writes files into the folder that it is given, and returns the result as plain data. Called again in the same
        folder after it was cut off: it goes on, or writes its files anew.
    needs : tuple of str
        Stages without whose results it can't be made.
    wants : tuple of str
        Stages whose results it uses where there are some.
    """

    name: str
    title: str
    follows_from: Callable[[Work], dict[str, Any] | Lacks]
    make: Callable[[Work, Path], dict[str, Any]]
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()

    @property
    def before(self) -> tuple[str, ...]:
        """Stages that it uses."""
        return self.needs + self.wants


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a finished stage wrote of itself; None unless all of its files are there as they were."""
    try:
        kept: dict[str, Any] = read_json(folder / "stage.json")
        whole = all((folder / name).stat().st_size == size for name, size in kept["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return kept if whole else None
