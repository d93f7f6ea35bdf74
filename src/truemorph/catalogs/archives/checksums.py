"""Digests of files, and how they are written down: "md5:..." or "sha256:..."."""

from __future__ import annotations

import hashlib
import os
import re

from truemorph.errors import InputError

_CHECKSUM = re.compile(r"(?P<algorithm>[a-z0-9_]+):(?P<digest>[0-9a-f]+)")


def file_hash(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """Digest of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def split_checksum(checksum: str) -> tuple[str, str]:
    """Algorithm and digest of a checksum.

    Raises
    ------
    InputError
        If it is none.

    Examples
    --------
    >>> split_checksum("md5:D41D8CD98F00B204E9800998ECF8427E")
    ('md5', 'd41d8cd98f00b204e9800998ecf8427e')
    """
    match = _CHECKSUM.fullmatch(str(checksum).lower())
    # Algorithms without a length of their own (shake) have a digest size of 0.
    if (
        match is None
        or match["algorithm"] not in hashlib.algorithms_guaranteed
        or len(match["digest"]) != 2 * hashlib.new(match["algorithm"]).digest_size
    ):
        raise InputError(f'a checksum is "md5:" or "sha256:" and the digest in hexadecimal digits; got {checksum!r}')
    return match["algorithm"], match["digest"]
