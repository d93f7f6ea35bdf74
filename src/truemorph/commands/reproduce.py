"""truemorph reproduce: the paper's experiment."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from pydantic import SkipValidation

from truemorph.arguments import validated
from truemorph.config import given_settings
from truemorph.findings import Findings, findings_in, unique
from truemorph.plotting import BLUE, GREY, legend
from truemorph.reproduce.options import Inputs, ReproduceOptions
from truemorph.results import Result, text_facts, text_table, with_error

if TYPE_CHECKING:
    GivenInputs = Inputs | dict[str, Any]
else:
    GivenInputs = Annotated[Inputs, SkipValidation]

_DEFAULTS = ReproduceOptions()


class Reproduction(Result):
    """What a reproduction of the paper found, and the files that it wrote.

    `content`, that of `reproduce.json`: `stages` (name, status, what is missing or failed), what they found by name,
    `reasons`, `answer`, and `published` (the page and its figures, in the folder `out`).
    """

    out: Path
    content: dict[str, Any]
    findings: Findings

    @property
    def failure(self) -> str:
        """Stages that failed, in one line."""
        failed = [stage["name"] for stage in self.content["stages"] if stage["status"] == "failed"]
        if not failed:
            return ""
        return f"{len(failed)} stages failed: {', '.join(failed)} (see above, or {self.out / 'reproduce.json'})"

    @property
    def _rows(self) -> list[dict[str, Any]]:
        """Rows of Table 1."""
        return list((self.content.get("table1") or {"rows": []})["rows"])

    def summary(self) -> str:
        """Return the status of each stage, Table 1 beside the paper's, and the answer as text."""
        stages = self.content["stages"]
        alike: dict[tuple[str, str], list[str]] = {}
        for stage in sorted(stages, key=lambda outcome: bool(outcome["text"])):
            alike.setdefault((stage["status"], stage["text"]), []).append(stage["name"])
        lines = text_facts(
            [(status, ", ".join(names) + (f": {text}" if text else "")) for (status, text), names in alike.items()]
        )
        rows = []
        for row in self._rows:
            here = with_error(row["bootstrap_mean"], row["bootstrap_std"], ".4f")
            paper = with_error(row["paper"], row["paper_std"], ".4f")
            rows.append([f"{row['letter']}) {row['labels']}", here, paper])
        if rows:
            measure = self.content["table1"]["measure"]
            lines += text_table(["labels", f"{measure} here", f"{measure} in the paper"], rows)
        lines += textwrap.wrap(self.content["answer"], 100)
        page = self.out / "reproduction.html"
        return "\n".join([*lines, *([f"Next: open {page}"] if page.is_file() else [])])

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `reproduce.json`."""
        return self.content

    def to_table(self) -> Any:
        """Return Table 1: the bias metric of each label set here and in the paper."""
        from truemorph.tables import frame_of_rows, to_astropy

        return to_astropy(frame_of_rows(self._rows))

    def draw(self, ax: Any) -> None:
        """Draw Table 1: the bias metric here against the paper's."""
        rows = [row for row in self._rows if row["bootstrap_mean"] is not None]
        names = ("paper", "bootstrap_mean", "bootstrap_std", "paper_std")
        x, y, yerr, xerr = ([row[name] for row in rows] for name in names)
        ax.errorbar(x, y, yerr, xerr, fmt="o", ms=4, color=BLUE)
        ax.axline((0, 0), slope=1, color=GREY, lw=1, ls="--", label="as in the paper")
        for row in rows:
            ax.annotate(row["letter"], (row["paper"], row["bootstrap_mean"]), (5, 5), textcoords="offset points")
        most = 1.1 * max([*x, *y], default=1.0)
        ax.set(xlabel="CV18 in the paper", ylabel="CV18 here", xlim=(0, most), ylim=(0, most))
        legend(ax)


@validated
def reproduce_paper(
    *,
    data: Path = Path("data"),
    out: Path = Path("reproduction"),
    options: ReproduceOptions = _DEFAULTS,
    inputs: Annotated[
        GivenInputs | None, Parameter(name="*", group=Group("Inputs (default: files from fetch)", sort_key=10))
    ] = None,
) -> Reproduction:
    """Reproduce the paper's experiment: Table 1 and Figures 1 to 7, compared with the paper.

    Results of stages are cached: if interrupted, run the same command again to resume; a later run repeats only what
    has changed. Stages whose data are missing are reported, with how to get them.

    Example: truemorph reproduce --data data --fetch --scale paper --out reproduction

    Parameters
    ----------
    data : path
        Folder of data from truemorph fetch.
    out : path
        Folder for reproduction.html, figures, reproduce.json, and the stages' files.
    options : ReproduceOptions
        Scale of the experiment, and stages to run.
    inputs : Inputs or dict, optional
        Files to use, and settings of the networks ("training").

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
    from truemorph.reproduce.experiment import run_experiment  # needs the networks

    content = run_experiment(data, out, options, given_settings(inputs))
    findings = findings_in(*(part for part in content.values() if isinstance(part, dict)))
    return Reproduction(out, content, unique(findings))
