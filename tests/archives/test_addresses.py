"""Addresses have terms of use, and can be replaced."""

import re
from pathlib import Path

import pytest

import truemorph
from truemorph.archives.addresses import addresses
from truemorph.archives.fetch import ARCHIVES
from truemorph.errors import InputError


def test_every_address_has_a_licence_and_a_citation_and_is_in_one_file():
    table = addresses()
    assert {name.partition(".")[0] for name in table} == set(ARCHIVES)
    for one in table.values():
        assert one.url.startswith("https://")
        assert one.licence
        assert re.search(r"doi:10\.|https?://", one.citation)
    hosts = {one.url.split("/")[2] for one in table.values()}
    for path in Path(truemorph.__file__).parent.rglob("*.py"):
        assert not any(host in path.read_text() for host in hosts), path


OVERRIDES = """
gz2.hart16 = "http://mirror.example.org/hart"
[gz2.mapping]
url = "http://mirror.example.org/m.csv"
checksum = "md5:00000000000000000000000000000000"
[sdss.sql]
licence = "ours"
"""


def test_addresses_can_be_replaced(tmp_path, monkeypatch):
    path = tmp_path / "addresses.toml"
    path.write_text(OVERRIDES)
    before, after = addresses(), addresses(path)
    assert after["gz2.mapping"].checksum == "md5:" + "0" * 32
    assert after["gz2.mapping"].citation == before["gz2.mapping"].citation
    assert (after["sdss.sql"].url, after["sdss.sql"].licence) == (before["sdss.sql"].url, "ours")
    # The same URL keeps its checksum, another does not.
    other = tmp_path / "other.toml"
    other.write_text(f'"gz2.images" = "{before["gz2.images"].url}"')
    assert addresses(other) == before
    assert before["gz2.images"].checksum
    other.write_text('"gz2.images" = "http://a.org/i.zip"')
    assert addresses(other)["gz2.images"].checksum is None
    monkeypatch.setenv("TRUEMORPH_ADDRESSES", str(path))
    other.write_text('"gz2.hart16" = "http://me.example.org/hart"')
    mine = addresses(other)
    assert (mine["gz2.hart16"].url, mine["sdss.sql"]) == ("http://me.example.org/hart", after["sdss.sql"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('gz2.hart61 = "http://a.org/"', "gz2.hart16"),
        ('gz2.hart16 = "ftp://a.org/"', "gz2.hart16"),
        ('[gz2.hart16]\nurl = "http://a.org/"\nchecksm = "md5:0"', "checksm"),
        ('[gz2.hart16]\nurl = "http://a.org/"\nchecksum = "md5:0"', "gz2.hart16"),
    ],
)
def test_wrong_replacements_raise_errors(tmp_path, text, named):
    path = tmp_path / "addresses.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=named) as caught:
        addresses(path)
    assert str(path) in str(caught.value)
