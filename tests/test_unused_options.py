"""Options that would change nothing are refused."""

import pytest

import truemorph as tm
from truemorph.errors import InputError


@pytest.fixture(scope="module")
def galaxies():
    return tm.simulate_catalogue(300, gold=60)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (tm.prepare_catalogue, {"size": "40arcsec"}),
        (tm.prepare_catalogue, {"bands": ["i", "r", "g"]}),
        (tm.prepare_catalogue, {"zero_point": 22.5}),
        (tm.prepare_catalogue, {"within": 2.0}),
        (tm.plan_gold, {"error": 0.03, "budget": 100}),
        (tm.measure_bias, {"depth": 2}),
        (tm.train_classifier, {"naive": True, "where": ["split=train"]}),
        (tm.train_classifier, {"transition": "rayleigh:11.25", "where": ["split=train"]}),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, dict) else one.__name__,
)
def test_an_option_that_would_change_nothing_is_refused(galaxies, tmp_path, command, options):
    out = {"out": tmp_path / "model"} if command is tm.train_classifier else {}
    with pytest.raises(InputError):
        command(galaxies, **options, **out)
