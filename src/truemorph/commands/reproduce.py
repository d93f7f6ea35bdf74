"""truemorph reproduce: the paper's experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from truemorph.config import given_settings
from truemorph.reproduce.options import Inputs, ReproduceOptions
from truemorph.reproduce.result import Reproduction

if TYPE_CHECKING:
    GivenInputs = Inputs | dict[str, Any]
else:
    GivenInputs = Inputs

_DEFAULTS = ReproduceOptions()


def reproduce_paper(
    *,
    data: Path = Path("data"),
    out: Path = Path("reproduction"),
    options: ReproduceOptions = _DEFAULTS,
    config: Path | None = None,
    inputs: Annotated[
        GivenInputs | None, Parameter(name="*", group=Group("Inputs (default: what fetch has left)"))
    ] = None,
) -> Reproduction:
    """Reproduce the paper's experiment: Table 1 beside the paper's, Figures 3 to 7, and why they may differ.

    Results of stages are cached: if interrupted, run the same command again to resume; a later run repeats only what
    has changed. Stages whose data are missing are reported, with what would provide them.

    Example: truemorph reproduce --data data --fetch --scale paper --out reproduction

    Parameters
    ----------
    data : path
        Folder of data, as truemorph fetch leaves it.
    out : path
        Folder for reproduction.html, table1.json, .ecsv and .md, figures, reproduce.json, and the stages' files.
    options : ReproduceOptions
        How large the experiment is, and what is run.
    config : path, optional
        TOML file that says which files hold what; default reproduce.toml in the folder of data.
    inputs : Inputs or dict, optional
        Which files hold what, and settings of the networks ("training").

    Returns
    -------
    Reproduction

    Raises
    ------
    InputError
        If there is no such folder, a file that was named is absent, or a setting is unknown.
    TruemorphError
        If another process works in the same folder.

    Examples
    --------
    >>> reproduce_paper(data=Path("no-such-folder"))
    Traceback (most recent call last):
        ...
    truemorph.errors.InputError: no-such-folder: no such folder of data; ...
    """
    from truemorph.reproduce.whole import reproduce  # needs the networks

    return reproduce(Path(data), Path(out), options, config=config, inputs=given_settings(inputs))
