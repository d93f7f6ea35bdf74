"""What the first bytes of an answer say it is, and what its last bytes say about whether it is whole."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from truemorph.catalogs.archives.failures import UnansweredError
from truemorph.errors import InputError

# As many bytes as are looked at.
HEAD = 4096
_MARKUP = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.DOTALL | re.IGNORECASE)
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html|head|body|!--|title|h1|p|pre|script|meta)\b", re.IGNORECASE)

_LAST_TAG = re.compile(rb"</(\w+:)?VOTABLE\s*>")


def _text(head: bytes) -> bytes:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()


def _is_csv(head: bytes) -> bool:
    return b"\0" not in head and not head.startswith(b"\x1f\x8b") and not _text(head).startswith(b"<")


def _is_image(head: bytes) -> bool:
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))


# Name: how it reads in a message, whether these first bytes begin one.
_KINDS: dict[str, tuple[str, Callable[[bytes], bool]]] = {
    "csv": ("a CSV table", _is_csv),
    "json": ("JSON", lambda head: _text(head).startswith((b"{", b"["))),
    "votable": ("a VOTable", lambda head: _text(head).startswith(b"<") and b"<VOTABLE" in head),
    "image": ("an image", _is_image),
    "fits": ("a FITS file", lambda head: head.startswith(b"SIMPLE  =")),
    "zip": ("a zip file", lambda head: head.startswith((b"PK\x03\x04", b"PK\x05\x06"))),
    "gzip": ("a gzip file", lambda head: head.startswith(b"\x1f\x8b")),
}


def known_kind(expect: str | None) -> None:
    """Refuse what isn't a kind of content.

    Raises
    ------
    InputError
    """
    if expect is not None and expect not in _KINDS:
        raise InputError(f"expect is one of {', '.join(_KINDS)}; got {expect!r}")


def first_words(head: bytes, most: int = 120) -> str:
    """What a person reads of a page first, in one line."""
    text = html.unescape(_MARKUP.sub(" ", head.decode("utf-8", "replace")))
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def wrong_head(head: bytes, expect: str | None) -> str | None:
    """What came in place of what was wanted, by its first bytes; None where it begins as it should.

    Parameters
    ----------
    head : bytes
        The first bytes; `HEAD` of them, or all.
    expect : {"csv", "json", "votable", "image", "fits", "zip", "gzip"} or None
        None takes anything.

    Examples
    --------
    >>> wrong_head(b"<html><h1>Down for maintenance</h1>", "csv")
    'wanted a CSV table, got a web page, which says "Down for maintenance"'
    """
    known_kind(expect)
    if expect is None:
        return None
    what, begins = _KINDS[expect]
    if begins(head):
        return None
    if not head:
        came = "nothing"
    elif _PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        came = f'a web page, which says "{first_words(head)}"'
    elif b"\0" in head or head.startswith((b"\x1f\x8b", b"PK", b"\xff\xd8")):
        came = f"something else (it begins with {head[:8]!r})"
    else:
        came = f'text, which says "{first_words(head)}"'
    return f"wanted {what}, got {came}"


def check_head(head: bytes, expect: str | None, url: str) -> None:
    """Refuse an answer that begins as something else than `expect`.

    Raises
    ------
    UnansweredError
        With the first words of a page that came instead of data.
    """
    if why := wrong_head(head, expect):
        raise UnansweredError(
            f"{url}: {why}; try again later, and if that stays so replace the address (--addresses)",
            page=True,
            passing=True,
        )


def looks_cut(head: bytes, tail: bytes, size: int, expect: str | None) -> bool:
    """Whether something of a kind that says where it ends does not get there.

    Parameters
    ----------
    head, tail : bytes
        The first and the last bytes: `HEAD` of them, or all.
    size : int
        Bytes.
    expect : str or None
        As for `wrong_head`; CSV tables don't say where they end, zip and gzip files are read through elsewhere.
    """
    if expect == "votable":
        return not _LAST_TAG.search(tail)
    if expect == "json":
        return not tail.rstrip().endswith((b"}", b"]"))
    if expect == "image":
        return b"\xff\xd9" not in tail[-64:] if head.startswith(b"\xff\xd8") else b"IEND" not in tail[-64:]
    if expect == "fits":
        return size % 2880 != 0
    return False
