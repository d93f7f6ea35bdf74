import pytest

import truemorph as tm
from truemorph.errors import InputError


@pytest.mark.parametrize(
    "wrong", [{"n": 0}, {"disk_fraction": 1.0}, {"drift": float("nan")}, {"gold": 101}, {"transition": 11.25}]
)
def test_a_world_that_cannot_be_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        tm.simulate_catalogue(**{"n": 100, **wrong})
