"""Options of the reproduction, and its input files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import Parameter
from pydantic import BaseModel, Field

from truemorph import config
from truemorph.arguments import Count, Names, Seed
from truemorph.errors import InputError
from truemorph.io import checked
from truemorph.reproduce.paper import SAMPLE, SPLIT

_CONFIG_0_2 = "reproduce.toml"
# Files that `truemorph fetch` writes in the folder of data.
FETCHED = {"hart": "gz2/gz2_hart16.csv.gz", "better": "hst"}
_SCALES = {"paper": 1.0, "quick": 0.05}
_TRAININGS = 3
# Minimum number of test galaxies, on which bias is measured, and their largest fraction of the sample.
_TEST, _LARGEST_TEST = 1_000, 0.4


class Inputs(BaseModel, frozen=True, extra="forbid"):
    """Input files and columns; by default, the files that `fetch` wrote.

    Paths are relative to the folder of data or to the working directory.
    """

    table: str | None = Field(
        None, description="catalogue of truemorph prepare, from the volunteers' votes (GZ2B), instead of fetched tables"
    )
    hart: str | None = Field(None, description="votes debiased by Hart et al. 2016 (GZ2D), of the same galaxies")
    hart_preset: str = Field("gz2-debiased", description="column names of that table: a preset or a TOML file")
    better: str | None = Field(None, description="folder of HST images, OBJECT_ID.jpg")
    intrinsic: config.Names = Field(("radius_kpc", "M_r", "redshift"), description="columns of CV18's tree")
    features: config.Names = Field(("sersic_n", "ellipticity", "r_half"), description="columns of DCV14")
    sersic_index: str = Field("sersic_n", description="column of Sersic indices (Figure 3)")
    training: dict[str, Any] = Field({}, description="settings of the networks, such as crop")

    @classmethod
    def of(cls, data: Path, **inputs: Any) -> Inputs:
        """Find the input files: those given, then those that `truemorph fetch` wrote."""
        given = {name: value for name, value in inputs.items() if value not in (None, (), [])}
        if not given and (data / _CONFIG_0_2).is_file():
            raise InputError(
                f"{data / _CONFIG_0_2}: is not read by itself since 0.3; run truemorph reproduce --config with it"
            )
        settings = {name: file for name, file in FETCHED.items() if (data / file).exists()} | given
        for name in ("table", "hart", "better", "hart_preset"):
            if name in settings and (name != "hart_preset" or str(settings[name]).endswith(".toml")):
                value = str(settings[name])
                there = [place for place in (data / value, Path(value)) if place.exists()]
                if not there:
                    where = f"no such file in {data} or in the working directory"
                    raise InputError(f"{value} ({name}): {where}; give its path, or leave it out")
                settings[name] = str(there[0].resolve())
        return checked(cls, settings, f"{data}:")


@Parameter(name="*")
@dataclass(frozen=True)
class ReproduceOptions:
    """Size of the reproduction, and stages to run.

    Attributes
    ----------
    scale : str
        paper, quick (0.05), or a fraction of the paper's 121,984 galaxies.
    fetch : bool
        Fetch missing data from the archives.
    stages : sequence of str
        Run only these stages and those that they use; comma-separated.
    preset : str, optional
        Preset of the networks; default: paper at scale paper, quick below.
    depth : int, optional
        Levels of the tree of CV18; default: 3 at scale paper, as in published code of the same lineage; below, the most
        that leave 25 galaxies per bin.
    bins : int, optional
        Bins of α of CV18; default: 8 at scale paper; below, as for depth.
    bootstrap : int
        Bootstrap resamples.
    every_curve : bool
        Draw all label sets in Figure 3, not only GZ2B, GZ2D and DDB as in the paper.
    cache : Path, optional
        Folder for decoded images.
    seeds : int, optional
        How often each network is trained, from other random numbers, to measure how far its results scatter; default:
        3, but 1 at scale paper, where verdicts on networks then stay open.
    dry_run : bool
        Show which stages would run.
    seed : int
        Random seed.

    Raises
    ------
    InputError
        If a number is out of range.

    Examples
    --------
    >>> options = ReproduceOptions(scale="0.01", stages=["theta"])
    >>> options.fraction, options.counts
    (0.01, (622, 598))
    """

    scale: str = "quick"
    fetch: bool = False
    stages: Names = ()
    preset: str | None = None
    depth: int | None = None
    bins: int | None = None
    bootstrap: Count = 100
    every_curve: bool = False
    cache: Path | None = None
    seeds: int | None = None
    dry_run: bool = False
    seed: Seed = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise InputError(f"`scale` must be above 0 and at most 1; got {self.scale}")
        for name, least in (("bootstrap", 2), ("depth", 0), ("bins", 2), ("seeds", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"`{name}` must be at least {least}; got {value}")

    @property
    def fraction(self) -> float:
        """Fraction of the paper's 121,984 galaxies."""
        try:
            return float(_SCALES.get(self.scale, self.scale))
        except ValueError:
            message = f"`scale` must be paper, quick or a fraction of the paper's sample; got {self.scale!r}"
            raise InputError(message) from None

    @property
    def trainings(self) -> int:
        """How often each network is trained."""
        return self.seeds or (1 if self.fraction == 1 else _TRAININGS)

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of smooth and disk galaxies to draw."""
        smooth, disk = (max(1, round(self.fraction * n)) for n in SAMPLE)
        return smooth, disk

    def split(self, n: int) -> tuple[float, float, float]:
        """Return numbers or fractions of training, validation and test galaxies of a sample of `n`.

        The paper's numbers at full scale; below, at least 1,000 test galaxies if possible.
        """
        if self.fraction == 1:
            return SPLIT
        validation = SPLIT[1] / sum(SPLIT)
        test = max(SPLIT[2] / sum(SPLIT), min(_LARGEST_TEST, _TEST / n))
        return 1 - validation - test, validation, test
