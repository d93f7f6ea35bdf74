"""Findings about data or a result: what was found, why it matters, and what to do.

Every check, warning and note is a `Finding`, made where the number is computed. Python, the command line, reports and
JSON show the same findings. docs/findings.md explains each code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["problem", "caution", "note"]


@dataclass(frozen=True)
class Finding:
    """Something that the user should know about a result.

    Attributes
    ----------
    code : str
        Stable name, such as "flat-fractions-assumed"; see docs/findings.md.
    severity : {"problem", "caution", "note"}
        A problem makes the result unusable; a caution limits its interpretation; a note is for information.
    message : str
        What was found, with numbers.
    action : str
        What to do next; empty if nothing. Python arguments are in backticks; the command line
        shows the corresponding option instead.

    Examples
    --------
    >>> print(Finding("no-drift", "caution", "The labels do not drift with α.", "Give gold labels (`gold`)."))
    caution: The labels do not drift with α. Give gold labels (`gold`).
    """

    code: str
    severity: Severity
    message: str
    action: str = ""

    def __str__(self) -> str:
        return " ".join(f"{self.severity}: {self.message} {self.action}".split())

    def to_dict(self) -> dict[str, str]:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Finding:
        """Rebuild a finding from JSON."""
        return cls(**given)


def findings_in(*described: Mapping[str, Any]) -> Findings:
    """Rebuild the findings of results from their JSON."""
    return tuple(Finding.from_dict(finding) for result in described for finding in result.get("findings", ()))


def unique(*findings: Iterable[Finding]) -> Findings:
    """Return the findings of several results in order, without duplicates."""
    return tuple(dict.fromkeys(finding for group in findings for finding in group))


Findings = tuple[Finding, ...]


class FindingWarning(UserWarning):
    """A finding as a Python warning, from functions that return arrays and can't return findings."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding
