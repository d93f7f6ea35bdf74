"""What a report is to show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cyclopts import Parameter

from truemorph.arguments import Count, Names, Paths, Rules, Seed
from truemorph.errors import InputError


@Parameter(name="*")
@dataclass(frozen=True)
class ReportOptions:
    """What a report is to show.

    Attributes
    ----------
    catalogue : Path, optional
        Prepared; that of the first run if not given.
    labels : sequence of Path
        Labels that runs gave earlier, known by the hash of the model; others are made.
    gold : sequence of str
        Columns or rules ("t_type>=-3") that say what a disk truly is; column `gold` if there is one.
    intrinsic : sequence of str
        Columns that classes may depend on.
    also : sequence of str
        "NAME=COLUMN": further labels or disk fractions that the catalogue brings, such as Hart et al.'s.
    where : sequence of str
        "COLUMN=VALUE": galaxies to measure on.
    rows : {"auto", "test", "all"}
        Measure on test galaxies, or on all; "auto": on test galaxies if there are 1,000.
    distributions : sequence of str
        Columns whose distributions are compared between classes (Figure 3); `sersic_n` if there is one.
    boundary : float
        Sérsic index above which galaxies are mostly smooth.
    sersic : int
        Measure Sérsic indices on the pictures of so many galaxies, drawn at random.
    field : str, optional
        What an image file is across, arcsec: a number or a column; for radii of maps, and the PSF of Sérsic profiles.
    better : Path, optional
        Folder of better images, OBJECT_ID.jpg.
    galaxies : int
        Most galaxies in the gallery.
    maps : int
        Most galaxies whose Grad-CAM maps are averaged, drawn at random; 0 for no maps at all.
    align : bool
        Mean maps of galaxies turned to one position angle too.
    draws : int
        Networks of random weights that check the maps, two at least; 0 for no check.
    leaderboard : Path, optional
        `leaderboard.json` of `truemorph benchmark`, to show beside.
    bootstrap : int
        Resamples for the errors of bias metrics.
    seed : int
        Random seed.

    Raises
    ------
    InputError
        If a number is negative, or `rows` is something else.
    """

    catalogue: Path | None = None
    labels: Paths = ()
    gold: Rules = ()
    intrinsic: Names = ()
    also: Rules = ()
    where: Rules = ()
    rows: Literal["auto", "test", "all"] = "auto"
    distributions: Names = ()
    boundary: float = 3.0
    sersic: Count = 0
    field: str | None = None
    better: Path | None = None
    galaxies: Count = 200
    maps: Count = 500
    align: bool = False
    draws: Count = 5
    leaderboard: Path | None = None
    bootstrap: Count = 100
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.rows not in ("auto", "test", "all"):
            raise InputError(f"`rows` is auto, test or all; got {self.rows!r}")
        for name in ("sersic", "galaxies", "maps", "draws", "bootstrap"):
            value: Any = getattr(self, name)
            if value < 0:
                raise InputError(f"{name} is a number, 0 or more; got {value}")
        if self.draws == 1:
            raise InputError("draws is 0, for no check of the maps, or two networks of random weights at least; got 1")
