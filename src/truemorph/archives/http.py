"""Transfers over HTTP: one session for all archives, a download that resumes, and safe unpacking of zip files.

`Session` limits the rate of requests, retries, and turns failures into one clear line. urllib3's `Retry` covers
everything up to the headers of an answer; `Session.whole` repeats a request whose body was cut off or is not data.
Proxies and certificates come from the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE).
"""

from __future__ import annotations

import gzip
import html
import re
import shutil
import stat
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from truemorph._version import __version__
from truemorph.archives.addresses import Address, without_login
from truemorph.archives.provenance import read_provenance, record
from truemorph.errors import InputError, TruemorphError
from truemorph.io import file_hash, read_json, write_json, written_whole
from truemorph.progress import progress

TRIES = 5
BACK_OFF = 1.0  # seconds, doubled after each failure
TIMEOUT = (15.0, 120.0)  # seconds to connect, and without any data
LONGEST_WAIT = 300.0  # seconds that a server may ask to wait; asked for more, the run ends
CHUNK = 1 << 16  # bytes
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_PROGRESS = 1 << 20  # bytes that a try must bring to count as progress
_MOST_BYTES, _MOST_RATIO, _RATIO_FROM = 64 * 10**9, 200, 1 << 20  # of unpacked files
_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_MAGIC = {".gz": b"\x1f\x8b", ".zip": b"PK"}
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_ADVICE = {
    401: "the server wants a login",
    403: "the server refuses; a proxy or firewall may be in the way",
    404: "nothing is there; replace the address (--addresses)",
    407: "the proxy wants a login: HTTP_PROXY=http://NAME:PASSWORD@HOST:PORT",
    410: "it was removed; replace the address (--addresses)",
}
_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (requests.exceptions.SSLError, "the certificate is not trusted (name your proxy's own in REQUESTS_CA_BUNDLE)"),
    (requests.exceptions.ProxyError, "the proxy does not answer (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)"),
    (requests.exceptions.TooManyRedirects, "redirected in circles; replace the address (--addresses)"),
    (requests.exceptions.ConnectTimeout, f"no connection within {TIMEOUT[0]:g} s"),
    (requests.exceptions.ConnectionError, "no connection (is there a network?)"),
)

T = TypeVar("T")


class ServerError(TruemorphError):
    """A request that failed.

    Attributes
    ----------
    status : int or None
        HTTP status, where there was an answer.
    timed_out : bool
        Whether the server or a gateway ran out of time; a smaller request may work.
    """

    def __init__(self, text: str, status: int | None = None, timed_out: bool = False) -> None:
        super().__init__(text)
        self.status, self.timed_out = status, timed_out or status in (408, 504)


class ComeBackLaterError(TruemorphError):
    """The server asks to wait for longer than `LONGEST_WAIT`; no more requests are made in this run."""


class BrokenAnswerError(Exception):
    """A body that is cut off or is not data: `Session.whole` tries again, after `wait` seconds or more."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class _Retry(urllib3.Retry):
    """Ends the run where a server asks to wait for long; urllib3 would clamp the wait and ask again."""

    def get_retry_after(self, response: Any) -> float | None:
        """Return the seconds that the server asks to wait; None without a valid header."""
        self.retry_after_max = 10**9
        try:
            seconds = super().get_retry_after(response)
        except urllib3.exceptions.InvalidHeader:
            return None
        if seconds is not None and seconds > LONGEST_WAIT:
            back = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() + min(seconds, 1e10)))
            raise ComeBackLaterError(
                f"the server asks to wait {seconds:,.0f} s; run the same command again after {back}, what has arrived "
                "is kept"
            )
        if seconds is not None and seconds >= 10:
            print(f"the server asks to wait {seconds:,.0f} s", file=sys.stderr)
        return seconds


class _Adapter(HTTPAdapter):
    """Sends at most `per_second` requests a second to any one host, redirects included."""

    def __init__(self, per_second: float, retries: _Retry) -> None:
        super().__init__(max_retries=retries)
        self._between = 1 / per_second
        self._next: dict[str, float] = {}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        host, now = urlsplit(str(request.url)).netloc, time.monotonic()
        due = max(now, self._next.get(host, now))
        self._next[host] = due + self._between
        if due > now:
            time.sleep(due - now)
        return super().send(request, *args, **kwargs)


class Session(requests.Session):
    """A requests session that is patient and polite; other clients such as pyvo can use it too.

    Parameters
    ----------
    per_second : float
        Most requests a second to any one host.
    offline : bool
        Refuse every request.

    Raises
    ------
    InputError
        If `per_second` is not positive.

    Examples
    --------
    >>> Session(offline=True).get("https://example.org/table.csv")
    Traceback (most recent call last):
        ...
    truemorph.errors.TruemorphError: https://example.org/table.csv: cannot be requested with --offline; run the same
    command without it
    """

    def __init__(self, per_second: float = 2.0, *, offline: bool = False) -> None:
        super().__init__()
        if not per_second > 0:
            raise InputError(f"--rate is requests a second, more than 0; got {per_second:g}")
        self.offline = offline
        self.headers["User-Agent"] = f"truemorph/{__version__} (python-requests; research software)"
        # A body that was compressed for the transfer can't be resumed, nor its length checked.
        self.headers["Accept-Encoding"] = "identity"
        retries = _Retry(
            total=TRIES - 1,
            allowed_methods=None,
            status_forcelist=_TRANSIENT,
            backoff_factor=BACK_OFF,
            backoff_jitter=BACK_OFF / 2,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(per_second, retries))

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send a request and return the answer with its body still to be read.

        Raises
        ------
        ServerError
            If there is no answer after all tries, or its status is 400 or more.
        ComeBackLaterError
            If the server asks to wait for more than five minutes.
        TruemorphError
            If this is offline.
        InputError
            If the URL is malformed.
        """
        shown = without_login(url)
        if self.offline:
            raise TruemorphError(f"{shown}: cannot be requested with --offline; run the same command without it")
        kwargs["timeout"] = TIMEOUT
        try:
            response = super().request(method, url, *args, **{**kwargs, "stream": True})
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as problem:
            raise InputError(f"{shown}: not a valid address; replace it (--addresses)") from problem
        except requests.RequestException as problem:
            silent = _is_silence(problem)
            why = next((text for kind, text in _FAILURES if isinstance(problem, kind)), type(problem).__name__)
            why = f"no data for {TIMEOUT[1]:g} s" if silent else why
            raise ServerError(f"{shown}: {why}; run the same command again later", timed_out=silent) from problem
        except ComeBackLaterError as problem:
            raise ComeBackLaterError(f"{shown}: {problem}") from problem
        if (status := response.status_code) >= 400:
            words = ""
            with response, suppress(urllib3.exceptions.HTTPError):
                words = first_words(response.raw.read(4096, decode_content=True))
            said = f"HTTP {status} {response.reason or ''}".rstrip() + (f' ("{words}")' if words else "")
            raise ServerError(f"{shown}: {said}; {_ADVICE.get(status, 'run the same command again later')}", status)
        return response

    def whole(self, once: Callable[[], T], url: str, arrived: Callable[[], int] = lambda: 0) -> T:
        """Call `once` until it brings a whole answer.

        Parameters
        ----------
        once : callable
            Sends a request and reads the body. It is called again after `BrokenAnswerError` and failed transfers.
        url : str
            For messages.
        arrived : callable
            Bytes that are kept between two calls. As long as they grow, tries are not counted.

        Raises
        ------
        ServerError
            After `TRIES` failures in a row.
        """
        failures = 0
        while True:
            before = arrived()
            try:
                return once()
            except (requests.RequestException, urllib3.exceptions.HTTPError, BrokenAnswerError) as problem:
                failures = 1 if arrived() >= before + _PROGRESS else failures + 1
                why = str(problem) if isinstance(problem, BrokenAnswerError) else "the connection was cut"
                if failures == TRIES:
                    raise ServerError(
                        f"{without_login(url)}: {why} ({TRIES} tries); run the same command again later to resume",
                        timed_out=_is_silence(problem),
                    ) from problem
                time.sleep(max(getattr(problem, "wait", 0.0), BACK_OFF * 2 ** (failures - 1)))

    def read(
        self,
        url: str,
        params: dict[str, Any] | None = None,
        check: Callable[[requests.Response], object] = lambda response: None,
    ) -> bytes:
        """Return the whole body of an answer.

        Parameters
        ----------
        url : str
        params : dict, optional
            Of the query.
        check : callable
            Raises `BrokenAnswerError` where the answer isn't whole.

        Raises
        ------
        ServerError
            Also if a web page keeps coming in place of data.
        """

        def once() -> bytes:
            response = self.get(url, params=params)
            refuse_page(response.content)
            check(response)
            return response.content

        return self.whole(once, url)


def _is_silence(problem: BaseException) -> bool:
    """Whether nothing came in time: requests wraps that once or twice."""
    inner = problem.args[0] if problem.args else None
    return any(
        isinstance(one, urllib3.exceptions.ReadTimeoutError | requests.exceptions.ReadTimeout)
        for one in (problem, inner, getattr(inner, "reason", None))
    )


def first_words(body: bytes, most: int = 120) -> str:
    """Return the text at the beginning of a web page or message, in one line.

    Examples
    --------
    >>> first_words(b"<html><body><h1>Sorry</h1> We are <b>down</b>.</body></html>")
    'Sorry We are down .'
    """
    text = html.unescape(re.sub(r"<[^>]*>", " ", body[:4096].decode("utf-8", "replace")))
    words = " ".join(text.split())
    return words if len(words) <= most else f"{words[: most - 1]}…"


def refuse_page(head: bytes) -> None:
    """Refuse a web page that came in place of data.

    Raises
    ------
    BrokenAnswerError
    """
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<") and _PAGE.search(head[:1000]):
        raise BrokenAnswerError(f'a web page came in place of data ("{first_words(head)}")')


def download(session: Session, address: Address, path: Path) -> bool:
    """Fetch a file, which appears under its name when it is complete and checked, and record where it is from.

    While it arrives it is `<name>.part`, described by `<name>.part.json`. If interrupted, the same call resumes, if the
    server still has the same file (Range and If-Range, RFC 9110); otherwise it starts again. Without a published
    checksum, zip and gzip files are read to their end. A file that is there is kept if its checksum is right or,
    without checksum, if it is the one recorded from this address.

    Parameters
    ----------
    session : Session
    address : Address
    path : Path
        The file to write.

    Returns
    -------
    bool
        False if the file was there already.

    Raises
    ------
    TruemorphError
        If the file can't be fetched, or is not the one that was published.
    """
    checksum = address.checksum
    if path.is_file():
        entry = read_provenance(path.parent).get(path.name)
        if entry and (session.offline or not checksum):
            why = None if entry.get("sha256") == file_hash(path) else f"it has changed since {entry.get('date')}"
            if not session.offline and entry.get("url") != address.public_url:
                why = f"it is from {entry.get('url')}"
        else:
            why = _damage(path, path.suffix, checksum)
        if why is None:
            if not entry:
                record(path, address)
            return False
        print(f"{path}: {why}; fetching it again", file=sys.stderr)
    if session.offline:
        raise TruemorphError(
            f"{path}: missing, and cannot be requested with --offline; run the same command without it, or put the "
            f"file from {address.public_url} there"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    session.whole(lambda: _transfer(session, address.url, part, path.suffix), address.url, lambda: _size(part))
    why = _damage(part, path.suffix, checksum)
    _described(part).unlink(missing_ok=True)
    if why:
        part.unlink()
        raise TruemorphError(
            f"{address.public_url}: not the published file ({why}); run the same command again or, if the file was "
            "replaced, give its address with a new checksum or none (--addresses)"
        )
    part.replace(path)
    record(path, address)
    return True


def _transfer(session: Session, url: str, part: Path, suffix: str) -> None:
    """Fetch what is missing of a file into its part."""
    described, have, headers = _described(part), _size(part), {}
    known = read_json(described) if have and described.is_file() else {}
    # A weak ETag doesn't promise the same bytes.
    validators = [known.get("etag") or "W/", known.get("last_modified") or "W/"]
    validator = next((one for one in validators if not one.startswith("W/")), None)
    if have and validator and known.get("url") == without_login(url):
        headers = {"Range": f"bytes={have}-", "If-Range": validator}
        if have == known.get("size"):
            return
    with session.get(url, headers=headers) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        if response.status_code == 206:
            sent = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if sent is None or int(sent[1]) != have or known.get("size") not in (None, int(sent[2])):
                part.unlink()
                raise BrokenAnswerError("the server sent another part than was asked for")
            total = int(sent[2])
        else:
            have = 0
        # As it was sent: some servers declare a .gz file to be compressed for the transfer.
        chunks = response.raw.stream(CHUNK, decode_content=False)
        first = next(chunks, b"")
        if have == 0:
            refuse_page(first)
            if not first.startswith(_MAGIC.get(suffix, b"")):
                raise BrokenAnswerError(f'not a {suffix} file (it begins "{first_words(first)}")')
            about = {"etag": response.headers.get("ETag"), "last_modified": response.headers.get("Last-Modified")}
            part.unlink(missing_ok=True)
            write_json(described, {"url": without_login(url), **about, "size": total})
        with part.open("ab") as file, progress(total, part.stem, "B", initial=have) as bar:
            while first:
                file.write(first)
                bar.update(len(first))
                first = next(chunks, b"")


def _described(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _damage(path: Path, suffix: str, checksum: str | None) -> str | None:
    """Say what is wrong with a file: its checksum or, if none is published, its end."""
    if checksum is not None:
        algorithm, digest = checksum.lower().split(":")
        found = file_hash(path, algorithm)
        return None if found == digest else f"its {algorithm} is {found} in place of {digest}"
    if suffix == ".zip":
        return None if zipfile.is_zipfile(path) else "the zip file is cut off"
    if suffix == ".gz":
        try:
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
        except (OSError, EOFError, zlib.error):
            return "the gzip file is cut off or damaged"
    return None


def unzip(path: Path, folder: Path, keep: Callable[[str], str | None]) -> list[str]:
    """Unpack files from a zip file; run again, it writes only those that are missing or differ.

    Parameters
    ----------
    path : Path
    folder : Path
        Nothing is written outside it.
    keep : callable
        From an entry's name to the name to write, relative to `folder`; None skips the entry.

    Returns
    -------
    list of str
        Names of the files, relative to `folder`.

    Raises
    ------
    TruemorphError
        If the zip file is cut off or damaged; if any entry has an absolute path, "..", a drive letter, or is a link, a
        device or encrypted; or if what it holds is absurdly large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if why := _danger(entry):
                    raise TruemorphError(f"{path}: entry {entry.orig_filename!r} {why}; nothing was unpacked")
            wanted = {name: entry for entry in archive.infolist() if (name := keep(entry.filename))}
            # zipfile stops at the declared size, so that is what has to be checked.
            if (size := sum(entry.file_size for entry in wanted.values())) > _MOST_BYTES:
                raise TruemorphError(
                    f"{path}: it holds {size:,d} bytes, more than the limit of {_MOST_BYTES:,d}; nothing was unpacked"
                )
            with progress(len(wanted), f"unpacking {path.name}", "files") as bar:
                for name, entry in wanted.items():
                    if not _is_there(folder / name, entry):
                        with (
                            written_whole(folder / name) as partial,
                            archive.open(entry) as source,
                            partial.open("wb") as out,
                        ):
                            shutil.copyfileobj(source, out)
                    bar.update(1)
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, UnicodeDecodeError) as problem:
        raise TruemorphError(
            f"{path}: cut off or damaged ({problem}); delete it and run the same command again"
        ) from problem
    return list(wanted)


def _danger(entry: zipfile.ZipInfo) -> str | None:
    name = entry.orig_filename.replace("\\", "/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in PurePosixPath(name).parts:
        return "leads out of the folder"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.file_size > max(_RATIO_FROM, _MOST_RATIO * entry.compress_size):
        return f"unpacks {entry.compress_size:,d} bytes to {entry.file_size:,d}, more than {_MOST_RATIO} times as many"
    return None


def _is_there(path: Path, entry: zipfile.ZipInfo) -> bool:
    return _size(path) == entry.file_size and path.is_file() and zlib.crc32(path.read_bytes()) == entry.CRC
