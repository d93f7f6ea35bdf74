"""One remote file onto disk: resumed where it was cut off, checked, and there only when it is whole.

While it arrives a file is `<name>.part`, and `<name>.part.json` says of what. A part goes on (Range and If-Range,
RFC 9110 sections 13.1.5 and 14) only while the server still has the very same file; otherwise it starts anew.
"""

from __future__ import annotations

import os
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from truemorph.catalogs.archives.checksums import file_hash, split_checksum
from truemorph.catalogs.archives.content import HEAD, check_head, known_kind, wrong_head
from truemorph.catalogs.archives.failures import AgainError
from truemorph.catalogs.archives.parts import Part, Source, WrongError, check_whole, room_for
from truemorph.catalogs.archives.patience import PASSING, passing
from truemorph.catalogs.archives.provenance import now, read_provenance
from truemorph.catalogs.archives.web import Web, check_status
from truemorph.errors import InputError, TruemorphError
from truemorph.progress import progress

if TYPE_CHECKING:
    import requests

_CHUNK = 1 << 20
_RANGE = re.compile(r"bytes (?P<first>\d+)-(?P<last>\d+)/(?P<total>\d+|\*)")


@dataclass(frozen=True)
class Downloaded:
    """A whole file.

    Attributes
    ----------
    path : Path
    url : str
    bytes : int
    sha256 : str
    when : str
        Time (UTC, ISO 8601) it was fetched, or found where it was there already and nobody recorded when it came.
    fetched : bool
        False where it was there already.
    """

    path: Path
    url: str
    bytes: int
    sha256: str
    when: str
    fetched: bool


def _held(path: Path) -> AcquireReturnProxy:
    """The right to fetch a file; waits while another process does."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(f"{path}: another process is fetching it; waiting for that", file=sys.stderr, flush=True)
        return lock.acquire()


def _found(web: Web, url: str, path: Path, checksum: str | None, size: int | None, expect: str | None) -> Any:
    """The file that is there already, if it is the one that is wanted."""
    entry = read_provenance(path.parent).get(path.name, {})
    try:
        with path.open("rb") as file:
            if why := wrong_head(file.read(HEAD), expect):
                raise WrongError(why)
        check_whole(path, checksum, size, expect)
        sha256 = file_hash(path)
        if checksum is None:
            if not web.offline and entry.get("url") not in (None, url):
                raise WrongError(f"it came from {entry['url']}")
            if entry.get("sha256") not in (None, sha256):
                raise WrongError(f"it has changed since {entry.get('date', 'it was fetched')}")
    except WrongError as problem:
        if web.offline:
            raise TruemorphError(
                f"{path}: not the file from {url} ({problem}), and this is offline; run the same with a network"
            ) from problem
        print(f"{path}: fetched anew: {problem}", file=sys.stderr, flush=True)
        return None
    return Downloaded(path, url, path.stat().st_size, sha256, str(entry.get("date") or now()), fetched=False)


def download(
    web: Web,
    url: str,
    path: str | os.PathLike[str],
    *,
    checksum: str | None = None,
    size: int | None = None,
    expect: str | None = None,
) -> Downloaded:
    """Fetch one file; `path` exists only when the file is whole and checked.

    Cut off, by whatever, the same call goes on where it was. A file that is there already is kept if its checksum (or,
    where none was published, its size) is right and `provenance.json` beside it doesn't say otherwise; so a file that
    was put there by hand counts. Of two processes that want the same file one fetches it and the other waits.

    Parameters
    ----------
    web : Web
    url : str
    path : path
        File to write.
    checksum : str, optional
        "md5:..." or "sha256:...".
    size : int, optional
        Bytes.
    expect : {"csv", "json", "votable", "image", "fits", "zip", "gzip"}, optional
        What the file must be, by its first bytes; zip and gzip files without checksum are also looked at to their end.

    Returns
    -------
    Downloaded

    Raises
    ------
    TruemorphError
        Offline and not there; no answer, or the wrong file, after all tries; or the disk is full.
    InputError
        If the address or checksum can't be one, or the folder can't be written to.
    """
    path = Path(path)
    known_kind(expect)
    if checksum is not None:
        split_checksum(checksum)
    if path.is_dir():
        raise InputError(f"{path}: a folder is where the file should be; move it away")
    try:
        if web.offline:  # where a folder that is read-only will do
            return _settled(web, url, path, checksum, size, expect)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _held(path):
            return _settled(web, url, path, checksum, size, expect)
    except OSError as problem:
        raise InputError(
            f"{problem.filename or path}: can't be written ({problem.strerror or problem}); choose another folder "
            "(--out)"
        ) from problem


def _settled(web: Web, url: str, path: Path, checksum: str | None, size: int | None, expect: str | None) -> Downloaded:
    """The file, found or fetched, by the one process that may."""
    part = Part(path)
    if path.is_file() and (found := _found(web, url, path, checksum, size, expect)):
        if not web.offline:
            part.remove()
        return found
    if web.offline:
        raise TruemorphError(
            f"{path}: not there, and this is offline; run the same with a network, or put the file from {url} there"
        )
    for last in (False, True):
        try:
            _fetch(web, url, part, path.name, size, expect)
            check_whole(part.path, checksum, size, expect)
            break
        except WrongError as problem:
            part.remove()
            if last:
                raise TruemorphError(
                    f"{url}: twice not the file that was published: {problem}; nothing was kept. Try again later; "
                    "if the file was replaced, give its address anew, with its new checksum or none (--addresses)"
                ) from problem
            print(f"{url}: {problem}; fetched once more from the start", file=sys.stderr, flush=True)
    if part.open_ended and checksum is None and size is None and expect in (None, "csv"):
        print(
            f"{path}: the server did not say how long it is; whether all of it came can't be checked", file=sys.stderr
        )
    sha256 = file_hash(part.path)
    part.finish(path)
    return Downloaded(path, url, path.stat().st_size, sha256, now(), fetched=True)


def _fetch(web: Web, url: str, part: Part, name: str, size: int | None, expect: str | None) -> None:
    """Bring the part to its end, in as many tries as it takes.

    Raises
    ------
    WrongError
        If the server has another number of bytes than `size`.
    TruemorphError
    """

    def once() -> None:
        before = part.size()
        try:
            _once(web, url, part, name, size, expect)
        except AgainError as problem:
            source = part.source()
            whole = size or (source.size if source else None)
            # A server that cuts a long file now and then still gets through; one that drips doesn't.
            enough = max(1, whole // 100) if whole else _CHUNK
            gained = part.size() - before >= enough
            raise AgainError(
                str(problem), problem.wait, gained, status=problem.status, silent=problem.silent
            ) from problem

    web.session.patience.until(once, f"{name} ({url})")


def _once(web: Web, url: str, part: Part, name: str, size: int | None, expect: str | None) -> None:
    """Ask once, for what is missing."""
    source, have = part.source(), part.size()
    ours = source if source and source.url == url else None
    if ours and have and have == ours.size:
        return
    headers = {}
    if ours and have and ours.validator:
        headers = {"Range": f"bytes={have}-", "If-Range": ours.validator}
    with web.session.once("GET", url, headers=headers, stream=True) as response:
        status = response.status_code
        if status in PASSING:
            raise passing(response)
        if status == 416 and headers:
            part.remove()
            raise AgainError("the server has no more of it, or another file than before")
        if status >= 400:
            check_status(response, f"{name} ({url})", web.session.read(response)[:HEAD])
        if status == 206:
            total = _total(response, ours, have) if ours and headers else None
            if total is None:
                part.remove()
                raise AgainError("the server sent another part, or a part of another file, than was asked for")
        else:
            have, total = 0, _length(response)
        pieces = _pieces(web, response)
        # Nothing is begun, and no part given up, for a page that came instead of data.
        head = _head(pieces, total, expect, response.url) if have == 0 else b""
        if size is not None and total is not None and total != size:
            raise WrongError(f"the server has {total:,d} bytes in place of {size:,d}")
        if have == 0:
            part.begin(_source(response, url, total))
            part.open_ended = not {"Content-Length", "Transfer-Encoding"} & {key.title() for key in response.headers}
            pieces = chain([head], pieces)
        _append(pieces, part, name, have, size if total is None else total)
    if total is not None and part.size() != total:
        raise AgainError("the connection was cut")


def _length(response: requests.Response) -> int | None:
    """Bytes of the file; None where the server doesn't say, or says how many they are when compressed."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None


def _source(response: requests.Response, url: str, total: int | None) -> Source:
    """What the body is of; what was compressed for the way can't be gone on with, its bytes being others on disk."""
    if "Content-Encoding" in response.headers:
        return Source(url)
    return Source(url, response.headers.get("ETag"), response.headers.get("Last-Modified"), total)


def _total(response: requests.Response, source: Source, have: int) -> int | None:
    """Bytes of the whole file of which a 206 brings the rest; None where it is another file or another part."""
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    etag = response.headers.get("ETag")
    if match is None or int(match["first"]) != have or "Content-Encoding" in response.headers:
        return None
    if etag and source.etag and etag != source.etag:
        return None
    modified = response.headers.get("Last-Modified")
    if modified and source.last_modified and modified != source.last_modified:
        return None
    total = int(match["last"]) + 1 if match["total"] == "*" else int(match["total"])
    return total if source.size in (None, total) else None


def _pieces(web: Web, response: requests.Response) -> Iterator[bytes]:
    """The body as it comes, as it was before it was compressed for the way."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise TruemorphError(
            f"{response.url}: sent as {encoding}, which was not asked for; replace the address (--addresses)"
        )
    pieces = web.session.pieces(response)
    piece = next(pieces, b"")
    if encoding == "identity" or not _compressed_for_the_way(piece, response.url):
        yield piece
        yield from pieces
        return
    unpacker = zlib.decompressobj(wbits=31)
    try:
        while piece:
            while piece and not unpacker.eof:
                # A megabyte at a time: a bomb meets the limits of the disk, not of the memory.
                yield unpacker.decompress(piece, _CHUNK)
                piece = unpacker.unconsumed_tail
            piece = next(pieces, b"")
    except zlib.error as problem:
        raise AgainError("the answer can't be decompressed") from problem
    if not unpacker.eof:
        raise AgainError("the connection was cut")


def _compressed_for_the_way(first: bytes, url: str) -> bool:
    """Whether a body called gzip was compressed for the way only; stores that call a .gz file so send it as it is."""
    if not url.partition("?")[0].endswith((".gz", ".tgz")):
        return True
    try:
        return zlib.decompressobj(wbits=31).decompress(first, 2) == b"\x1f\x8b"
    except zlib.error:
        return False


def _head(pieces: Iterator[bytes], total: int | None, expect: str | None, url: str) -> bytes:
    """The first pieces of a body, enough to see that it is what is wanted."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= HEAD:
            break
    if not head and total is None:
        raise AgainError("the answer is empty")
    check_head(head[:HEAD], expect, url)
    return head


def _append(pieces: Iterator[bytes], part: Part, name: str, have: int, total: int | None) -> None:
    """Add a body to the part."""
    with (
        room_for(part.path.parent, name, None if total is None else total - have),
        part.path.open("ab") as file,
        progress(total, name, "B", initial=have) as bar,
    ):
        for piece in pieces:
            have += len(piece)
            if total is not None and have > total:
                raise WrongError(f"more than {total:,d} bytes came")
            part.append(file, piece)
            bar.update(len(piece))
