"""The result of a reproduction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truemorph.bias.plots import axes_or_new
from truemorph.findings import Finding
from truemorph.reproduce.stages import FAILED
from truemorph.results import Result, quantity_table

RESULT = "reproduce.json"


@dataclass(frozen=True, repr=False)
class Reproduction(Result):
    """What a reproduction of the paper found, and the files that it wrote.

    Attributes
    ----------
    out : Path
    content : dict
        The content of `reproduce.json`: `stages` (name, status, what is missing or failed), what they found by name,
        `reasons`, `estimate`, `answer`, `files` (by name, where they lie), `published` (each with its stage) and
        `of_an_earlier_run` (what was found then by stages that did not run now).
    findings : tuple of Finding
    """

    out: Path
    content: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def failure(self) -> str:
        """Stages that failed, in one line."""
        failed = [one["name"] for one in self.content["stages"] if one["status"] == FAILED]
        if not failed:
            return ""
        return f"{len(failed)} stages failed: {', '.join(failed)} (see above, or {self.out / RESULT})"

    def summary(self) -> str:
        """Return the status of each stage, Table 1 beside the paper's, and the answer as text."""
        lines = [f"{one['name']:13s} {one['status']:8s} {one['text']}".rstrip() for one in self.content["stages"]]
        if table := self.content.get("table1"):
            lines.append(f"{'':36s} {table['measure'] + ' here':>17s} {'paper':>17s}")
            for row in table["rows"]:
                here = "–"
                if row["bootstrap_mean"] is not None:
                    here = f"{row['bootstrap_mean']:.4f} ± {row['bootstrap_std']:.4f}"
                lines.append(
                    f"{row['letter']}) {row['labels']:33s} {here:>17s} {row['paper']:.4f} ± {row['paper_std']:.4f}"
                )
        lines += [self.content["answer"]] if self.content["answer"] else []
        return "\n".join(
            [*lines, *(f"open {one}" for key, one in self.content["files"].items() if key.endswith(".html"))]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `reproduce.json`."""
        return self.content

    def to_table(self) -> Any:
        """Return Table 1: the bias metric of each label set here and in the paper."""
        rows = (self.content.get("table1") or {"rows": []})["rows"]
        columns = {
            "bootstrap_mean": "bias metric here",
            "bootstrap_std": "its error",
            "paper": "bias metric in the paper",
        }
        numbers = {
            name: ([float("nan") if row[name] is None else row[name] for row in rows], "", about)
            for name, about in columns.items()
        }
        return quantity_table({"labels": ([row["labels"] for row in rows], "", "label set"), **numbers})

    def plot(self, ax: Any = None) -> Any:
        """Draw Table 1: the bias metric here against the paper's; returns matplotlib axes."""
        ax = axes_or_new(ax)
        rows = [
            one for one in (self.content.get("table1") or {"rows": []})["rows"] if one["bootstrap_mean"] is not None
        ]
        ax.errorbar([one["paper"] for one in rows], [one["bootstrap_mean"] for one in rows],
                    [one["bootstrap_std"] for one in rows], [one["paper_std"] for one in rows], fmt="o")  # fmt: skip
        for one in rows:
            ax.annotate(one["letter"], (one["paper"], one["bootstrap_mean"]))
        ax.set(xlabel="paper", ylabel="here")
        return ax
