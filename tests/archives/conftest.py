"""A server with scripted responses, simulated archives, and a client that does not wait."""

import pytest

from archives.server import Observatory, Server
from truemorph.archives import http


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    """No back-off and no rate limit; ignore proxies and addresses of this machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("TRUEMORPH_ADDRESSES", raising=False)
    monkeypatch.setattr(http, "BACK_OFF", 0.0)


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def sky(archive):
    """A simulated archive on a local server."""
    with Observatory(archive) as running:
        yield running
