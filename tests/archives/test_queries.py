"""Long queries in batches: stored on disk, and resumed."""

import polars as pl
import pytest

from truemorph.archives.queries import in_batches

SCHEMA = {"key": pl.Int64, "square": pl.Float64}


class Service:
    """Returns the square of every key except 3; fails after `answers` responses."""

    def __init__(self, answers=100):
        self.answers, self.asked = answers, []

    def __call__(self, keys):
        self.asked.append(keys.to_list())
        if self.answers == 0:
            raise ConnectionError
        self.answers -= 1
        return pl.DataFrame({"key": keys, "square": keys.cast(pl.Float64) ** 2}).filter(pl.col("key") != 3)


def gather(folder, service, n=10, source="here"):
    return in_batches(folder, "squares", source, SCHEMA, pl.Series("key", range(n)), service, 4)


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
