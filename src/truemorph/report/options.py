"""What a report is to show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from truemorph.arguments import Count, Names, Paths, Rules, Seed


@Parameter(name="*")
@dataclass(frozen=True)
class ReportOptions:
    """What a report is to show.

    Attributes
    ----------
    catalogue : Path, optional
        Prepared catalogue; default: that of the first run.
    labels : sequence of Path
        Label files of the runs (from truemorph label); others are computed. Also tables of other groups' answers, such
        as debiased votes or predictions of Zoobot, with the columns that a tree names.
    gold : sequence of str
        Gold labels of any of the questions: columns or rules ("t_type>=-3"); default: columns `gold` and
        `gold_<question>`, or, of a question asked after others, those of its estimate.
    intrinsic : sequence of str
        Columns that true classes may depend on.
    where : sequence of str
        Conditions, such as "COLUMN=VALUE" or "z < 0.1": galaxies to measure on; without a condition on `split`, test
        galaxies if there are 1,000.
    better : Path, optional
        Folder of better images, OBJECT_ID.jpg.
    galaxies : int
        Maximum number of galaxies in the gallery.
    maps : int
        Maximum number of galaxies whose Grad-CAM maps are averaged, drawn at random; 0 for no maps.
    bootstrap : int
        Resamples for the errors of bias metrics.
    seed : int
        Random seed.

    Examples
    --------
    >>> ReportOptions(intrinsic=("redshift",), where=("split=test",)).maps
    500
    """

    catalogue: Path | None = None
    labels: Paths = ()
    gold: Rules = ()
    intrinsic: Names = ()
    where: Rules = ()
    better: Path | None = None
    galaxies: Count = 200
    maps: Count = 500
    bootstrap: Count = 100
    seed: Seed = 0
