"""The account of a table's rows: how many come in, which rule loses how many, how many come out."""

from __future__ import annotations

import numpy as np
import polars as pl

from truemorph.catalogs.votes import ARTEFACT, NO_VOTES, TIED

ROWS_IN, ROWS_OUT = "rows in", "rows out"
NOT_SELECTED, NO_RADIUS, NO_PSF = "not selected by --where", "no positive radius", "no positive PSF width"
# No rule of a user's may be called so: the account would count two things as one.
RESERVED = (ROWS_IN, ROWS_OUT, NOT_SELECTED, NO_RADIUS, NO_PSF, NO_VOTES, TIED, ARTEFACT)


class Funnel:
    """Rows that are left, and why the others are not.

    The first rule that drops a row names the reason.

    Parameters
    ----------
    rows : int

    Examples
    --------
    >>> funnel = Funnel(4)
    >>> funnel.drop("too faint", np.array([True, False, False, False]))
    array([ True, False, False, False])
    >>> funnel.drop("no radius", np.array([True, True, False, False]))
    array([False,  True, False, False])
    >>> funnel.steps()
    [('rows in', 4), ('too faint', -1), ('no radius', -1), ('rows out', 2)]
    """

    def __init__(self, rows: int) -> None:
        self._rules: list[str] = []
        self._shown: list[bool] = []
        self._reason = np.full(rows, -1)

    @property
    def kept(self) -> np.ndarray:
        """Rows that no rule has dropped, shape (N,) of bool."""
        return self._reason < 0

    def drop(self, rule: str, broken: np.ndarray, *, show: bool = False) -> np.ndarray:
        """Drop rows that break a rule.

        Parameters
        ----------
        rule : str
        broken : array of bool, shape (N,)
        show : bool
            Give the rule a line in the account even where it drops nothing.

        Returns
        -------
        array of bool, shape (N,)
            Rows that this rule is the first to drop.
        """
        newly = broken & self.kept
        self._reason[newly] = len(self._rules)
        self._rules.append(rule)
        self._shown.append(show)
        return newly

    def steps(self) -> list[tuple[str, int]]:
        """Rows in, rows lost to each rule in the order of the rules, rows out."""
        lost = np.bincount(self._reason[self._reason >= 0], minlength=len(self._rules))
        losses = [(rule, -int(n)) for rule, n, show in zip(self._rules, lost, self._shown, strict=True) if n or show]
        return [(ROWS_IN, self._reason.size), *losses, (ROWS_OUT, int(self.kept.sum()))]

    def dropped(self, ids: pl.Series) -> pl.DataFrame:
        """List what was dropped: `row` (from 1), `object_id`, `reason`."""
        gone = np.flatnonzero(~self.kept)
        return pl.DataFrame(
            {
                "row": gone + 1,
                "object_id": ids.filter(~self.kept),
                "reason": pl.Series([self._rules[one] for one in self._reason[gone]], dtype=pl.String),
            }
        )
