"""Rows and weights that an estimate takes from a prepared catalogue."""

import numpy as np
import polars as pl
import pytest

from truemorph.catalogs.sampling import draw_sample, sampling_weights
from truemorph.catalogs.selected import select_rows
from truemorph.tables import CatalogTable


def test_galaxies_outside_the_sample_are_not_used_and_weights_undo_the_selection_by_label():
    """A sample of 3,000 of 20,000 galaxies, 2,400 labelled smooth and 600 disk, with the others as "unused"."""
    rng = np.random.default_rng(5)
    alpha, labels = rng.lognormal(3.1, 0.45, 20_000), (rng.random(20_000) < 0.8).astype(int)
    chosen, _ = draw_sample(labels, range(20_000), (2400, 600))
    split = np.where(chosen, "train", "unused")
    weights = np.where(chosen, sampling_weights(labels, chosen), 1.0)
    columns = {"object_id": range(20_000), "label": labels, "alpha": alpha, "split": split, "sampling_weight": weights}
    table = CatalogTable(pl.DataFrame(columns))
    rows = select_rows(table)
    assert rows.labels.size == 3000
    assert [one.code for one in rows.findings] == ["galaxies-not-in-sample"]
    assert "17,000 of 20,000" in rows.findings[0].message
    assert select_rows(table, ["split=unused"]).labels.size == 17_000
    assert np.average(rows.labels, weights=rows.weights) == pytest.approx(labels.mean(), abs=1e-9)
    assert select_rows(table, weights="none").weights is None
