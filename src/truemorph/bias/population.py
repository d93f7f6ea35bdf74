"""Class fractions of a population in bins, with errors: what estimates of them return and files hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from truemorph.bias.curves.transitions import DISK, SMOOTH, Array
from truemorph.bias.plots import plot_fractions
from truemorph.errors import InputError, nearest
from truemorph.findings import Findings, findings_in
from truemorph.io import plain
from truemorph.questions import Quantity, fraction_names, slug
from truemorph.results import Result, quantity_table, text_table


@dataclass(frozen=True)
class QuotedFraction:
    """A fraction in B bins, by the observed labels and corrected, with error and range; the same of all galaxies.

    The error and the range are those of these galaxies, and of the population of which they are a random sample.
    """

    labelled: np.ndarray
    fraction: np.ndarray
    stderr: np.ndarray
    low: np.ndarray
    high: np.ndarray
    population_stderr: np.ndarray
    population_low: np.ndarray
    population_high: np.ndarray
    total: tuple[float, ...]  # the same eight numbers

    def cells(self, b: int | None, assumed: bool = False) -> dict[str, str]:
        """Return the numbers of a bin, or of all galaxies (None), by column; the range first if they are `assumed`."""
        numbers = self.total if b is None else [getattr(self, name)[b] for name in _NUMBERS]
        labelled, value, stderr, low, high, *population = (f"{number:.3f}" for number in numbers)
        corrected, range_ = f"{value} ± {stderr}", f"{low} to {high}"
        if assumed:
            return {"observed": labelled, "range": range_, "by the assumption": corrected}
        cells = {"observed": labelled, "corrected": corrected, "range": range_}
        return cells | {"of a population": "± {}, {} to {}".format(*population)} if self.tells_apart else cells

    @property
    def tells_apart(self) -> bool:
        """Whether these galaxies and their population have different errors, which files of version 0.2 do not say."""
        known = bool(np.isfinite(self.population_stderr).any())
        return known and not np.array_equal(self.stderr, self.population_stderr, equal_nan=True)


def _number(counts: np.ndarray, b: int | None) -> str:
    """Return the number of galaxies of a bin, or of all (None), as text."""
    return f"{counts.sum() if b is None else counts[b]:,}"


def _members(group: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of a group in a file; version 0.2 joined those of merged groups."""
    return tuple(group) if not isinstance(group, str) else tuple(dict.fromkeys([group, *group.split(" or ")]))


_NUMBERS = tuple(field.name for field in fields(QuotedFraction) if field.name != "total")
_POPULATION = _NUMBERS[5:]


class PopulationFractions(Result):
    """Corrected class fractions in bins.

    Attributes
    ----------
    fractions, stderr : array, shape (B, K)
        Corrected class fractions of the galaxies in each bin, and their statistical error. From labels alone, the error
        includes the sampling of galaxies.
    covariance : array, shape (B, B)
        Covariance of the second class's fractions: bins share the errors of T, or of the regression on gold labels.
    low, high : array, shape (B, K)
        With gold labels, the 95 % interval. From labels alone, the range also spans all `alternatives`.
    population : array, shape (3, B, K)
        The same error and ends of the range for the population of which these galaxies are a random sample.
    labelled : array, shape (B, K)
        Fractions of the observed labels.
    edges : array, shape (B + 1,)
        Bin edges in the binning column.
    counts : array of int, shape (B,)
        Number of galaxies in each bin.
    alternatives : dict of str to array, shape (B, K)
        Without gold labels: other families, and trends of class fractions with α, which are included in the range.
    method, assumption : str
        Method, and the assumption behind it.
    findings : tuple of Finding
        Findings, including those of the fit.
    by : str
        Name of the binning column.
    members : tuple of tuple of str
        If this column has text: its values in each bin. Edges and middles are then numbers of the groups.
    middles : array, shape (B,)
        Mean of the binning column in each bin.
    bin_weights : array, shape (B,)
        Sum of the sampling weights in each bin.
    samples : array, shape (S, B, K), or None
        Draws of the fractions, with gold labels.
    probabilities : array, shape (N, K), or None
        With gold labels: p(class | label, votes, α, …) of each galaxy by the regression, 0 or 1 where its gold label is
        known. None in an estimate that was read from a file.
    of_total : array, shape (2, 3, K), or None
        With gold labels: error, lowest and highest class fraction of all bins together, of these galaxies and of their
        population.
    classes : tuple of str
        Names of the classes.
    quantities : tuple of Quantity
        Ratios of sums of classes that are quoted.
    of_quantities : array, shape (2, 3, B + 1, Q), or None
        The same of ratios in each bin, and of all bins together.
    gold_counts : array of int, shape (B,), or None
        Galaxies with gold labels; of a question, to which it applies.

    Examples
    --------
    >>> from truemorph import debiased_fractions, simulate_catalogue
    >>> table = simulate_catalogue(4000, gold=400)
    >>> labels, alpha, gold = (table[name].fill_null(-1).to_numpy() for name in ("label", "alpha", "gold"))
    >>> found = debiased_fractions(labels, alpha, gold=gold, bins=4)
    >>> found.fractions.shape, found.covariance.shape, found.draws(100).shape
    ((4, 2), (4, 4), (100, 4, 2))
    """

    fractions: np.ndarray
    stderr: np.ndarray
    low: np.ndarray
    high: np.ndarray
    labelled: np.ndarray
    edges: np.ndarray
    counts: np.ndarray
    alternatives: dict[str, np.ndarray]
    method: str
    assumption: str
    findings: Findings
    by: str
    middles: np.ndarray
    covariance: np.ndarray
    bin_weights: np.ndarray
    classes: tuple[str, ...]
    population: np.ndarray
    samples: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    of_total: np.ndarray | None = None
    quantities: tuple[Quantity, ...] = ()
    of_quantities: np.ndarray | None = None
    gold_counts: np.ndarray | None = None
    members: tuple[tuple[str, ...], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the one or two columns of the bins."""
        return (self.by,) if self.edges.ndim == 1 else tuple(self.by.split(","))

    @property
    def by_name(self) -> str:
        """What these columns are called in texts, such as "α and redshift"."""
        return " and ".join("α" if column == "alpha" else column for column in self.columns)

    @property
    def groups(self) -> tuple[str, ...]:
        """Name of each bin, if the column has text."""
        return tuple(map(" or ".join, self.members))

    @cached_property
    def quoted(self) -> dict[str, QuotedFraction]:
        """Return what is quoted, by name: quantities, or class fractions (of two classes that of the second)."""
        share, quantities = self.bin_weights / self.bin_weights.sum(), self.quantities
        if self.of_quantities is not None:
            errors = self.of_quantities.reshape(6, -1, len(quantities))
        else:  # class fractions
            every = np.eye(len(self.classes))
            names = fraction_names(self.classes).items()
            quantities = tuple(Quantity(name.replace("_", " "), tuple(every[k])) for name, k in names)
            total = np.full((6, len(every)), np.nan) if self.of_total is None else self.of_total.reshape(6, -1)
            every_bin = np.array([self.stderr, self.low, self.high, *self.population])
            errors = np.concatenate([every_bin, total[:, None]], axis=1)[..., [k for _, k in names]]
        with_all = [np.vstack([values, share @ values]) for values in (self.labelled, self.fractions)]
        fractions = {}
        for k, quantity in enumerate(quantities):
            numbers = np.array([*map(quantity.of, with_all), *errors[:, :, k]])  # (8, B + 1)
            of_bins = dict(zip(_NUMBERS, numbers[:, :-1], strict=True))
            fractions[quantity.name] = QuotedFraction(**of_bins, total=tuple(numbers[:, -1].tolist()))
        return fractions

    @property
    def ratios(self) -> dict[str, QuotedFraction]:
        """Return what is quoted, without the fraction to which a question applies."""
        return {name: fraction for name, fraction in self.quoted.items() if self.applies is not fraction}

    @property
    def applies(self) -> QuotedFraction | None:
        """Return the fraction of all galaxies to which a question applies: the quantity that is no ratio."""
        return next((self.quoted[quantity.name] for quantity in self.quantities if quantity.denominator is None), None)

    @property
    def of_some(self) -> QuotedFraction | None:
        """Return `applies`, unless the question applies to every galaxy."""
        return None if self.applies is None or np.all(self.applies.fraction > 1 - 1e-9) else self.applies

    def __getitem__(self, name: str) -> QuotedFraction:
        """Return what is quoted under a name, such as "bar fraction"."""
        if name not in self.quoted:
            raise InputError(f"no fraction {name!r}; {nearest(name, list(self.quoted), what='fractions')}")
        return self.quoted[name]

    def draws(self, n: int, seed: int = 0) -> np.ndarray:
        """Draw class fractions of the bins, to propagate errors of sampling, T(α) and its family.

        Parameters
        ----------
        n : int
        seed : int

        Returns
        -------
        array, shape (n, B, K)
            From labels alone, each draw uses a random one of the `alternatives`, with the error of the estimate.
        """
        rng = np.random.default_rng(seed)
        if self.samples is not None:
            return rng.choice(self.samples, n)
        drawn = rng.choice([self.fractions, *self.alternatives.values()], n)
        if drawn.shape[2] == 2:
            drawn[:, :, DISK] += rng.multivariate_normal(np.zeros(len(self.covariance)), self.covariance, n)
            drawn[:, :, SMOOTH] = 1 - drawn[:, :, DISK]
        else:
            drawn += rng.normal(size=drawn.shape) * self.stderr
        drawn = np.clip(drawn, 0, 1)
        return drawn / drawn.sum(axis=2, keepdims=True)

    @property
    def total(self) -> tuple[float, float]:
        """Return the second class's fraction of all bins together, and its statistical error."""
        share = self.bin_weights / self.bin_weights.sum()
        return float(share @ self.fractions[:, DISK]), float(np.sqrt(share @ self.covariance @ share))

    def summary(self) -> str:
        """Return the class fractions of each bin with its error and range as text."""
        systematic = "" if self.samples is not None else " and systematic"
        about = f"{self.method}; range: 95 %, statistical{systematic}; assumes that {self.assumption}"
        return "\n".join([*self.lines(), about])

    def lines(self, gold: np.ndarray | None = None) -> list[str]:
        """Return `printed` as lines of text."""
        rows = list(self.printed(gold))
        return text_table(list(rows[0]), [list(row.values()) for row in rows], left=())

    def printed(self, gold: np.ndarray | None = None) -> Iterator[dict[str, str]]:
        """Yield the numbers of each bin as text, by column, with the fraction of its gold labels, shape (B,), if given.

        Of two classes the fraction of the second is shown, of more that of each.
        """
        shown = self.ratios
        name = next(iter(shown)) if len(shown) == 1 else "fraction" if self.quantities else "class fraction"
        for b in [*range(self.counts.size), *([] if self.applies is None else [None])]:
            for what, fraction in shown.items():
                row = {f"{name} at {self.by_name}": "all" if b is None else self.bin_edges(b)}
                if len(shown) > 1:
                    row["of" if self.quantities else "class"] = what.removeprefix("fraction ").removesuffix(" fraction")
                row["galaxies"] = _number(self.counts, b)
                if self.of_some is not None:
                    row["applies to"] = self.of_some.cells(b)["corrected"]
                if self.applies is not None and self.gold_counts is not None:
                    row["gold"] = _number(self.gold_counts, b)
                row |= fraction.cells(b, self.samples is None)
                if gold is not None:
                    row["gold labels"] = f"{gold[b]:.3f}"
                yield row

    def bin_edges(self, b: int) -> str:
        """Return the edges of a bin as text, or the name of its group."""
        return self.groups[b] if self.groups else ", ".join(f"{low:.4g} to {high:.4g}" for low, high in self._ends[b])

    @property
    def _ends(self) -> np.ndarray:
        """Lower and upper edge of each bin in each column, shape (B, D, 2)."""
        return np.stack([self.edges[:-1], self.edges[1:]], axis=1)[:, None] if self.edges.ndim == 1 else self.edges

    def bin_name(self, b: int) -> str:
        """Return the mean of the binning column in a bin as text, or the name of its group."""
        return (
            self.groups[b] if self.groups else ", ".join(f"{middle:.3g}" for middle in np.atleast_1d(self.middles[b]))
        )

    @property
    def _columns(self) -> dict[str, tuple[np.ndarray, str]]:
        """Values, shape (B, K), and descriptions, by the names that they have in tables and JSON."""
        return {
            "labelled": (self.labelled, "fraction of {} by the observed labels"),
            "fractions": (self.fractions, "corrected fraction of {}"),
            "stderr": (self.stderr, "statistical standard error"),
            "low": (self.low, "lower end of the range"),
            "high": (self.high, "upper end of the range"),
            **{
                name: (values, f"the same {name.removeprefix('population_')} for the population of these galaxies")
                for name, values in zip(_POPULATION, self.population, strict=True)
            },
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the fractions as plain values, for JSON."""
        # Quantities have the weights of the classes, by which they are read again; class fractions have none.
        quoted = {name: dict(vars(fraction)) for name, fraction in self.quoted.items()}
        for quantity in self.quantities:
            quoted[quantity.name] |= {"numerator": quantity.numerator, "denominator": quantity.denominator}
        return plain(
            {
                "by": self.by,
                **({"groups": self.members} if self.members else {}),
                "classes": self.classes,
                "edges": self.edges,
                "middles": self.middles,
                "galaxies": self.counts,
                **{name: values for name, (values, _) in self._columns.items()},
                "covariance": self.covariance,
                "bin_weights": self.bin_weights,
                "of_total": self.of_total,
                "quantities": quoted,
                "gold_labels": self.gold_counts,
                "method": self.method,
                "assumption": self.assumption,
                "alternatives": self.alternatives,
                "findings": self.findings,
            }
        )

    @classmethod
    def from_dict(cls, described: Mapping[str, Any], samples: np.ndarray | None = None) -> PopulationFractions:
        """Rebuild them from what `to_dict` returns; `samples` are stored apart."""

        def whole(values: Any) -> np.ndarray:
            """Return values of all classes, shape (B, K); files of version 0.2 have those of the second of two."""
            array = np.array(values, float)
            return array if array.ndim == 2 else np.column_stack([1 - array, array])

        def ends(prefix: str) -> np.ndarray:
            """Return error, lowest and highest fraction, shape (3, B, K); version 0.2 wrote none of a population."""
            absent = np.full(np.shape(described["low"]), np.nan)
            numbers = [described.get(prefix + name, absent) for name in ("stderr", "low", "high")]
            error, low, high = array = np.array(numbers, float)
            return array if array.ndim == 3 else np.stack([[error, 1 - high, 1 - low], array], axis=2)

        stderr, low, high = ends("")
        if not isinstance(described["by"], str):
            raise TypeError(f"`by` should name a column; got {described['by']!r}")
        classes = tuple(described["classes"])
        names = ("edges", "middles", "covariance", "bin_weights", "of_total")
        stored = {"counts": "galaxies", "gold_counts": "gold_labels"} | {name: name for name in names}
        arrays: dict[str, Any] = {
            name: np.array(described[key]) for name, key in stored.items() if described.get(key) is not None
        }
        quoted = {name: ratio for name, ratio in described.get("quantities", {}).items() if "numerator" in ratio}
        if quoted:
            absent = [np.nan] * len(described["low"])
            of_quantities = [
                [
                    [*fraction.get(name, absent), (fraction["total"] + 3 * [np.nan])[k]]
                    for k, name in enumerate(_NUMBERS[2:], 2)
                ]
                for fraction in quoted.values()
            ]
            arrays |= {
                "quantities": tuple(
                    Quantity(
                        name, tuple(fraction["numerator"]), fraction["denominator"] and tuple(fraction["denominator"])
                    )
                    for name, fraction in quoted.items()
                ),
                "of_quantities": np.moveaxis(np.array(of_quantities, float), 0, 2).reshape(2, 3, -1, len(quoted)),
            }
        return cls(
            whole(described["fractions"] if "fractions" in described else described[slug(classes[DISK])]),
            stderr,
            low,
            high,
            whole(described["labelled"]),
            alternatives={name: whole(value) for name, value in described["alternatives"].items()},
            findings=findings_in(described),
            samples=samples,
            classes=classes,
            population=ends("population_"),
            members=tuple(map(_members, described.get("groups", ()))),
            **arrays,
            **{name: described[name] for name in ("method", "assumption", "by")},
        )

    def to_table(self) -> Any:
        """Return a table with one row per bin: observed and corrected fraction, with errors.

        Of more than two classes, each column has the name of its class.
        """
        columns: dict[str, tuple[Any, str]] = {}
        if self.groups:
            columns[self.by] = (list(self.groups), "group")
        for number, name in enumerate([] if self.groups else self.columns):
            low, high = self._ends[:, number].T
            end = "" if len(self.columns) == 1 else f"_{name}"
            columns[f"low_edge{end}"] = (low, f"lower edge of the bin in {name}")
            columns[f"high_edge{end}"] = (high, f"upper edge of the bin in {name}")
        columns["galaxies"] = (self.counts, "number of galaxies")
        if self.gold_counts is not None:
            columns["gold_labels"] = (self.gold_counts, "number of galaxies with a gold label")
        for name, fraction in self.quoted.items() if self.quantities else ():
            columns |= {f"{name}, {what}": (getattr(fraction, what), f"{name}: {what}") for what in _NUMBERS}
        for name, k in fraction_names(self.classes).items():
            end, of = "" if len(self.classes) == 2 else name.removeprefix("fraction"), f"class {self.classes[k]}"
            names = {"fractions": slug(self.classes[DISK])} if len(self.classes) == 2 else {}
            columns |= {
                names.get(part, part) + end: (values[:, k], what.format(of))
                for part, (values, what) in self._columns.items()
            }
        return quantity_table(columns, method=self.method, assumption=self.assumption)

    def draw(self, ax: Any, truth: Array | None = None) -> None:
        """Draw the observed and corrected fractions, and the truth if known."""
        plot_fractions(self, ax, {} if truth is None else {"truth": truth})
