"""Transfers over HTTP: a session for all archives, downloads that resume, and safe unpacking of zip files.

Proxies and certificates come from the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE).
"""

import gzip
import re
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

import requests
import urllib3

from truemorph._version import __version__
from truemorph.archives.addresses import Address, without_login
from truemorph.archives.provenance import entry_of, record
from truemorph.errors import InputError, TruemorphError, reason
from truemorph.io import file_hash, read_json, write_file, write_json
from truemorph.progress import progress, tell

TRIES = 5
BACK_OFF = 1.0  # seconds, doubled after each failure
TIMEOUT = (15.0, 120.0)  # seconds to connect, and without data
LONGEST_WAIT = 300.0  # seconds; if a server requests a longer wait, the run ends
CHUNK = 1 << 16  # bytes
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_TOO_LONG = {400, 404, 413, 414, 431}  # servers and proxies report a URL that is too long in many ways
_TOO_SLOW = re.compile(r"HTTP (408|504)|Read timed out")
MOST_UNPACKED = 64 * 10**9  # bytes
_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)

T = TypeVar("T")


class TooMuchError(TruemorphError):
    """The server timed out or rejected the request as too long; a smaller one may succeed."""


class ComeBackLaterError(TruemorphError):
    """The server requests a wait longer than `LONGEST_WAIT`; this run makes no more requests."""


class BrokenAnswerError(Exception):
    """A truncated or invalid response; `Session.whole` tries again after at least `wait` seconds."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class Session(requests.Session):
    """A requests session with retries and a rate limit, which other clients such as pyvo can use too."""

    def __init__(self, per_second: float) -> None:
        super().__init__()
        if not per_second > 0:
            raise InputError(f"`rate` must be more than 0 requests per second; got {per_second:g}")
        self.headers["User-Agent"] = f"truemorph/{__version__} (python-requests; research software)"
        # A compressed transfer can't be resumed, and its length can't be checked.
        self.headers["Accept-Encoding"] = "identity"
        self._between = 1 / per_second
        self._due = 0.0

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request; the body is not yet read. BrokenAnswerError if the same request may succeed later."""
        shown = without_login(str(request.url)).partition("?")[0]
        if (early := self._due - time.monotonic()) > 0:
            time.sleep(early)
        self._due = time.monotonic() + self._between
        try:
            response = super().send(request, **{**kwargs, "timeout": TIMEOUT, "stream": True})
        except requests.RequestException:
            raise
        except ValueError as problem:  # from urllib
            raise BrokenAnswerError(f"a redirect to an address that is not valid ({problem})") from problem
        if (status := response.status_code) < 400:
            return response
        said = f"HTTP {status} {response.reason} ({first_words(response.content)})"
        if status in _TRANSIENT:
            raise BrokenAnswerError(said, _wait(response, shown))
        kind = TooMuchError if status in _TOO_LONG else TruemorphError
        raise kind(f"{shown}: {said}; run the same command again later, or replace the address (`addresses`)")

    def whole(self, once: Callable[[], T], url: str, arrived: Callable[[], int] = lambda: 0) -> T:
        """Call `once`, which sends a request and reads the body, until it returns a complete response.

        At most `TRIES` times in a row, not counting tries after which more bytes have `arrived`.
        """
        failures = 0
        shown = without_login(url)
        while True:
            before = arrived()
            try:
                return once()
            except (requests.RequestException, urllib3.exceptions.HTTPError, BrokenAnswerError) as problem:
                failures = 1 if arrived() > before else failures + 1
                # "ProxyError" is clearer than "Connection refused".
                named = f"{type(problem).__name__}: " if isinstance(problem, requests.RequestException) else ""
                why = f"{shown}: {named}{reason(problem)}"
                if failures == TRIES:
                    kind = TooMuchError if _TOO_SLOW.search(str(problem)) else TruemorphError
                    raise kind(f"{why} ({TRIES} tries); run the same command again later to resume") from problem
                wait = getattr(problem, "wait", 0.0)
                if wait >= 10:
                    tell(f"{why}; waiting {wait:.0f} s")
                time.sleep(max(wait, BACK_OFF * 2 ** (failures - 1)))

    def read(self, url: str, params: dict[str, Any]) -> bytes:
        """Return the body of a response with query parameters `params`; a web page is an error."""
        return self.whole(lambda: checked_body(self.get(url, params=params).content), url)


def _wait(response: requests.Response, url: str) -> float:
    """Return the seconds that a server requests to wait (0 if none); raise an error if it is too long."""
    seconds = 0.0
    with suppress(urllib3.exceptions.InvalidHeader):
        seconds = urllib3.Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
    if seconds > LONGEST_WAIT:
        raise ComeBackLaterError(f"{url}: the server requests a wait of {seconds:,.0f} s; retry after that")
    return seconds


def first_words(body: bytes) -> str:
    """Return the first words of a web page or message as one line."""
    text = re.sub(r"<[^>]*>", " ", body[:4096].decode("utf-8", "replace"))
    return " ".join(text.split())[:120]


def checked_body(body: bytes) -> bytes:
    """Return a response or its beginning; BrokenAnswerError if it is a web page instead of data."""
    if body.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<") and _PAGE.search(body[:1000]):
        raise BrokenAnswerError(f'received a web page instead of data ("{first_words(body)}")')
    return body


def download(session: Session, address: Address, path: Path) -> None:
    """Download a file, check it, and record its provenance; it appears only when it is complete.

    A partial download is `<name>.part`, described by `<name>.part.json`, from which the same call resumes if the server
    still has the same file (Range and If-Range, RFC 9110). Without a published checksum, zip and gzip files are read to
    the end, and an existing file is kept if it is recorded as downloaded from this address.
    """
    if path.is_file():
        entry = entry_of(path)
        recorded = f"sha256:{entry['sha256']}" if entry else None
        why = _damage(path, path.suffix, address.checksum or recorded)
        if entry and entry["url"] != address.public_url and not address.checksum:
            why = f"it was downloaded from {entry['url']}"
        if why is None:
            if not entry:
                record(path, address)
            return
        tell(f"{path}: {why}; downloading it again")
    path.parent.mkdir(parents=True, exist_ok=True)
    part, described = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    session.whole(lambda: _transfer(session, address.url, part, described), address.url, lambda: _size(part))
    described.unlink()
    if why := _damage(part, path.suffix, address.checksum):
        part.unlink()
        advice = "retry or, if the file was replaced, give its address without checksum (`addresses`)"
        raise TruemorphError(f"{address.public_url}: not the published file ({why}); {advice}")
    part.replace(path)
    record(path, address)


def _transfer(session: Session, url: str, part: Path, described: Path) -> None:
    """Download the rest of a file to its .part file."""
    have = _size(part)
    headers = {}
    entry = read_json(described) if have and described.is_file() else {}
    if entry.get("validator") and entry.get("url") == without_login(url):
        headers = {"Range": f"bytes={have}-", "If-Range": entry["validator"]}
        if have == entry.get("size"):
            return
    with session.get(url, headers=headers) as response:
        have = have if response.status_code == 206 else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        # No decoding: some servers declare a .gz file as a compressed transfer.
        chunks = response.raw.stream(CHUNK, decode_content=False)
        first = next(chunks, b"")
        if not have:
            checked_body(first)
            etag = response.headers.get("ETag", "W/")  # a weak ETag does not guarantee identical bytes
            validator = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
            part.unlink(missing_ok=True)
            write_json(described, {"url": without_login(url), "validator": validator, "size": total})
        with part.open("ab") as file, progress(total, part.stem, "B", initial=have) as bar:
            while first:
                bar.update(file.write(first))
                first = next(chunks, b"")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _damage(path: Path, suffix: str, checksum: str | None) -> str | None:
    """Return what is wrong with a file: its checksum or, if none is known, its end."""
    if checksum is not None:
        algorithm, digest = checksum.lower().split(":")
        actual = file_hash(path, algorithm)
        return None if actual == digest else f"its {algorithm} is {actual} instead of {digest}"
    if suffix == ".zip" and not zipfile.is_zipfile(path):
        return "the zip file is truncated"
    if suffix == ".gz":
        try:
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
        except (OSError, EOFError, zlib.error):
            return "the gzip file is truncated or damaged"
    return None


def unzip(path: Path, folder: Path, wanted: re.Pattern[str]) -> list[str]:
    """Unpack missing or different entries that match to the name of the first group; return these names."""
    try:
        with zipfile.ZipFile(path) as archive:
            chosen = {}
            for entry in archive.infolist():
                name = PureWindowsPath(entry.orig_filename)  # handles both kinds of slashes, and drives
                if name.anchor or ".." in name.parts:
                    raise TruemorphError(f"{path}: entry {name} is outside of the folder; nothing was unpacked")
                if match := wanted.fullmatch(entry.filename):
                    chosen[match[1]] = entry
            # zipfile stops at the declared size, so checking that is sufficient.
            if (size := sum(entry.file_size for entry in chosen.values())) > MOST_UNPACKED:
                raise TruemorphError(f"{path}: nothing was unpacked: {size:,d} bytes, at most {MOST_UNPACKED:,d}")
            for to, entry in progress(len(chosen), f"unpacking {path.name}", "files", of=chosen.items()):
                target = folder / to
                if not target.is_file() or zlib.crc32(target.read_bytes()) != entry.CRC:
                    write_file(target, archive.read(entry))
    except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError, UnicodeDecodeError) as problem:
        raise TruemorphError(f"{path}: truncated or damaged ({problem}); delete it and retry") from problem
    return list(chosen)
