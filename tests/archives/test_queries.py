"""Long queries in batches: stored on disk, resumed, and halved if too large."""

import polars as pl
import pytest

from truemorph.archives.http import TooMuchError
from truemorph.archives.queries import in_batches

SCHEMA = {"key": pl.Int64, "square": pl.Float64}


class Service:
    """Returns the square of every key except 3, for at most `most` keys; fails after `answers` responses."""

    def __init__(self, most=100, answers=100):
        self.most, self.answers, self.asked = most, answers, []

    def __call__(self, keys):
        self.asked.append(keys.to_list())
        if keys.len() > self.most:
            raise TooMuchError("too much")
        if self.answers == 0:
            raise ConnectionError
        self.answers -= 1
        return pl.DataFrame({"key": keys, "square": keys.cast(pl.Float64) ** 2}).filter(pl.col("key") != 3)


def gather(folder, service, n=10, most=4, source="here"):
    return in_batches(folder, "squares", source, SCHEMA, pl.Series("key", range(n)), service, most)


def test_every_key_has_a_row_and_is_queried_once(tmp_path):
    table = gather(tmp_path, service := Service())
    assert service.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert table["key"].to_list() == list(range(10))
    assert table.filter(pl.col("square").is_null())["key"].to_list() == [3]
    assert gather(tmp_path, again := Service(), n=12).height == 12
    assert again.asked == [[10, 11]]
    gather(tmp_path, elsewhere := Service(), source="elsewhere")
    assert elsewhere.asked == service.asked


def test_an_interrupted_run_is_resumed(tmp_path):
    with pytest.raises(ConnectionError):
        gather(tmp_path, Service(answers=2))
    sorted(tmp_path.iterdir())[0].write_bytes(b"damaged")
    table = gather(tmp_path, service := Service())
    assert service.asked == [[0, 1, 2, 3], [8, 9]]
    assert table.sort("key").equals(gather(tmp_path / "at-once", Service()))
    # Keys without any row are queried again.
    gather(tmp_path / "lost", lambda keys: pl.DataFrame(schema=SCHEMA))
    assert gather(tmp_path / "lost", Service())["square"].null_count() == 1


def test_a_batch_that_is_too_large_is_halved_and_so_are_later_ones(tmp_path):
    gather(tmp_path, service := Service(most=2), n=7)
    assert service.asked == [[0, 1, 2, 3], [0, 1], [2, 3], [4, 5], [6]]
    with pytest.raises(TooMuchError):
        gather(tmp_path / "b", Service(most=0))
