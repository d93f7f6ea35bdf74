"""One table of addresses, each with its terms, any of them replaceable."""

import re
from pathlib import Path

import pytest

import truemorph
from truemorph.catalogs.archives.addresses import addresses
from truemorph.errors import InputError

NAMES = {
    "gz2.willett13",
    "gz2.hart16",
    "gz2.images_record",
    "gz2.images",
    "gz2.mapping",
    "sdss.sql",
    "simard.tap",
    "hst.hips2fits",
    "hst.moc",
}


def test_every_address_says_what_it_is_under_what_terms_and_how_to_cite_it():
    table = addresses()
    assert set(table) == NAMES
    for name, one in table.items():
        assert one.name == name
        assert one.url.startswith("https://")
        for text in (one.about, one.licence, one.citation):
            assert text == text.strip() != ""
            assert "\n" not in text
        assert re.search(r"doi:10\.|https?://", one.citation)


def test_no_other_file_of_the_package_holds_an_address_of_an_archive():
    hosts = {one.url.split("/")[2] for one in addresses().values()}
    source = Path(truemorph.__file__).parent
    for path in source.rglob("*.py"):
        text = path.read_text()
        for host in hosts:
            # The doctest of addresses() shows one.
            assert host not in text or path.name == "addresses.py", f"{path.relative_to(source)}: {host}"


@pytest.mark.parametrize("as_file", [False, True])
def test_overrides(tmp_path, as_file):
    given = {
        "gz2.images": "http://mirror.example.org/images_gz2.zip",
        "gz2": {"mapping": {"url": "http://mirror.example.org/m.csv", "size": 3}},
        "sdss.sql": {"licence": "ours"},
    }
    if as_file:
        path = tmp_path / "addresses.toml"
        path.write_text(
            '"gz2.images" = "http://mirror.example.org/images_gz2.zip"\n'
            '[gz2.mapping]\nurl = "http://mirror.example.org/m.csv"\nsize = 3\n'
            '[sdss.sql]\nlicence = "ours"\n'
        )
        given = path
    before, after = addresses(), addresses(given)
    assert before["gz2.images"].checksum is not None
    assert after["gz2.images"].url == "http://mirror.example.org/images_gz2.zip"
    assert (after["gz2.images"].checksum, after["gz2.images"].size) == (None, None)
    assert after["gz2.images"].citation == before["gz2.images"].citation
    assert (after["gz2.mapping"].checksum, after["gz2.mapping"].size) == (None, 3)
    assert (after["sdss.sql"].url, after["sdss.sql"].licence) == (before["sdss.sql"].url, "ours")
    assert after["gz2.hart16"] == before["gz2.hart16"]
    assert addresses() == before


def test_plain_dotted_keys_are_names_too(tmp_path):
    path = tmp_path / "addresses.toml"
    path.write_text('gz2.images = "http://a.example.org/i.zip"\ngz2.images_record = "http://a.example.org/r"\n')
    table = addresses(path)
    assert table["gz2.images"].url == "http://a.example.org/i.zip"
    assert table["gz2.images_record"].url == "http://a.example.org/r"


def test_the_same_url_keeps_its_checksum():
    known = addresses()["gz2.images"]
    assert addresses({"gz2.images": known.url})["gz2.images"] == known


def test_the_environment_comes_before_what_is_given(tmp_path, monkeypatch):
    path = tmp_path / "mine.toml"
    path.write_text('gz2.hart16 = "http://a.example.org/h"\ngz2.mapping = "http://a.example.org/m"\n')
    monkeypatch.setenv("TRUEMORPH_ADDRESSES", str(path))
    table = addresses({"gz2.hart16": "http://b.example.org/h"})
    assert table["gz2.hart16"].url == "http://b.example.org/h"
    assert table["gz2.mapping"].url == "http://a.example.org/m"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('gz2.hart61 = "http://a.org/"', "no address gz2.hart61; did you mean gz2.hart16?"),
        ('zzz = "http://a.org/"', "no address zzz; known: gz2.willett13, "),
        ('gz2.hart16 = "ftp://a.org/"', "gz2.hart16: an address begins with http:// or https://; got 'ftp://a.org/'"),
        ('gz2.hart16 = "http://"', "an address begins with http"),
        ("gz2.hart16 = 3", "gz2.hart16 takes an address in quotes, or a table with url; got 3"),
        ('[gz2.hart16]\nurl = "http://a.org/"\nchecksm = "md5:0"', "has no setting checksm; did you mean checksum?"),
        ('[gz2.hart16]\nurl = "http://a.org/"\nchecksum = "md5:0"', 'a checksum is "md5:" or "sha256:" and the digest'),
        ('[gz2.hart16]\nurl = "http://a.org/"\nsize = "3 GB"', "size is a number of bytes; got '3 GB'"),
        ('[gz2.hart16]\nurl = "http://a.org/"\nsize = -1', "size is a number of bytes; got -1"),
        ("gz2.hart16", "not valid TOML"),
    ],
)
def test_wrong_overrides_are_named(tmp_path, text, says):
    path = tmp_path / "addresses.toml"
    path.write_text(text)
    with pytest.raises(InputError) as problem:
        addresses(path)
    assert str(path) in str(problem.value)
    assert says in str(problem.value)


def test_missing_override_files_are_named(monkeypatch):
    with pytest.raises(InputError, match=r"nowhere.toml: No such file"):
        addresses("nowhere.toml")
    monkeypatch.setenv("TRUEMORPH_ADDRESSES", "nowhere.toml")
    with pytest.raises(InputError, match=r"nowhere.toml \(TRUEMORPH_ADDRESSES\): No such file"):
        addresses()
