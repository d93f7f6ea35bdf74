"""How large a reproduction is: galaxies, networks, bins."""

from __future__ import annotations

from dataclasses import dataclass

from truemorph.errors import InputError
from truemorph.reproduce.paper import PER_THETA_BIN, SAMPLE, SPLIT

_NAMED = {"paper": 1.0, "quick": 0.05}
# Smaller samples keep as many test galaxies, up to this share: bias is measured on them.
_TEST, _LARGEST_TEST = 1_000, 0.4
_FEWEST_BINS = 12


@dataclass(frozen=True)
class Scale:
    """A share of the paper's experiment.

    Attributes
    ----------
    share : float
        Of its 121,984 galaxies.
    """

    share: float

    @classmethod
    def of(cls, text: str | float) -> Scale:
        """From "paper" (1), "quick" (0.05), or a number.

        Raises
        ------
        InputError
            If it is something else.

        Examples
        --------
        >>> Scale.of("0.01").counts
        (622, 598)
        """
        try:
            share = _NAMED[text] if text in _NAMED else float(text)
        except ValueError:
            raise InputError(f"scale is paper, quick or a share of the paper's sample; got {text!r}") from None
        if not 0 < share <= 1:
            raise InputError(f"scale is a share of the paper's sample, above 0 and at most 1; got {share:g}")
        return cls(share)

    @property
    def whole(self) -> bool:
        """Whether it is the paper's."""
        return self.share == 1

    @property
    def preset(self) -> str:
        """Preset of the networks' training."""
        return "paper" if self.whole else "quick"

    @property
    def counts(self) -> tuple[int, int]:
        """Smooth and disk galaxies to draw."""
        smooth, disk = (max(1, round(self.share * n)) for n in SAMPLE)
        return smooth, disk

    def split(self, n: int) -> tuple[float, float, float]:
        """Shares of training, validation and test among n galaxies.

        Examples
        --------
        >>> [round(121_984 * share) for share in Scale(1.0).split(121_984)]
        [97600, 12192, 12192]
        >>> [round(1_000 * share) for share in Scale(0.01).split(1_000)]
        [500, 100, 400]
        """
        validation = SPLIT[1] / sum(SPLIT)
        test = max(SPLIT[2] / sum(SPLIT), min(_LARGEST_TEST, _TEST / n))
        return 1 - validation - test, validation, test

    @staticmethod
    def theta_bins(training: int) -> int:
        """Bins of α for θ: the paper's number of galaxies in each, at least twelve bins."""
        return min(max(_FEWEST_BINS, training // PER_THETA_BIN), training)


QUICK = Scale.of("quick")
