"""A server that misbehaves on demand, and a client that doesn't wait."""

import pytest

from catalogs.archives.observatory import Observatory, small_archive
from catalogs.archives.server import Server
from truemorph.catalogs.archives.web import Web


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    """This machine's proxies and addresses are none of the tests' business."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("TRUEMORPH_ADDRESSES", raising=False)


@pytest.fixture
def server():
    with Server() as running:
        yield running
    assert running.problems == []


@pytest.fixture
def sky():
    """A simulated archive, served."""
    with Observatory(small_archive()) as running:
        yield running
    assert running.problems == []


@pytest.fixture
def waits():
    """Seconds that would have been waited."""
    return []


@pytest.fixture
def web(waits):
    return Web(per_second=1e6, timeout=(20.0, 20.0), sleep=waits.append)


@pytest.fixture
def impatient(waits):
    """A client that takes a third of a second of silence for a cut."""
    return Web(per_second=1e6, timeout=(20.0, 0.3), sleep=waits.append)
