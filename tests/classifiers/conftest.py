"""Networks that are trained here are not converted for labelling, which takes seconds; tests/labelling does that."""

import pytest

from truemorph.commands import train


@pytest.fixture(autouse=True, scope="package")
def without_conversion():
    """Training without its last step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "find_spec", lambda _: None)
        yield
