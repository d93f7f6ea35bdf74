"""Questions to a TAP service, through pyvo: its answers as tables, and its failures as what they are."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from itertools import count
from typing import Any

from truemorph.catalogs.archives.addresses import Address
from truemorph.catalogs.archives.failures import UnansweredError
from truemorph.catalogs.archives.patience import Patience
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError

_PAGES = 3  # tries of a query that something else than a VOTable comes of
_TIMED_OUT = re.compile(r"time[- ]?out|timed out|time limit|aborted", re.IGNORECASE)
_SLOW = {408, 504}


@dataclass(frozen=True)
class Tap:
    """A TAP service, and how patiently it is asked."""

    url: str
    client: Any
    patience: Patience


class TooMuchError(Exception):
    """The service gave up or gave less: a smaller question may do."""


def tap_service(web: Web, address: Address, wanted: str) -> Tap:
    """The service at an address.

    Raises
    ------
    TruemorphError
        If this is offline; `wanted` is what is missing then.
    InputError
        If pyvo isn't installed.
    """
    if web.offline:
        raise TruemorphError(
            f"{wanted}: not here, and this is offline; run the same with a network (it is at {address.url})"
        )
    try:
        from pyvo.dal import TAPService
    except ImportError as problem:
        raise InputError("fetching this needs pyvo: pip install 'truemorph[archives]'") from problem
    return Tap(address.url, TAPService(address.url, session=web.session), web.session.patience)


def search(service: Tap, adql: str, most: int | None = None) -> Any:
    """Ask, and give an astropy table.

    Parameters
    ----------
    service : Tap
    adql : str
    most : int, optional
        Rows of the answer; where the service gives fewer because of a limit of its own, that is an error.

    Raises
    ------
    TooMuchError
        If the service ran out of time or into its limit.
    TruemorphError
        If it doesn't answer, refuses, or answers with something else.
    """
    from pyvo.dal import DALFormatError, DALQueryError, DALServiceError
    from pyvo.dal.exceptions import DALOverflowWarning

    for tries in count(1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                # One more, so that an answer of all rows isn't taken for one cut at its limit.
                result = service.client.search(adql, maxrec=most and most + 1)
                break
            except (DALFormatError, DALQueryError, DALServiceError) as problem:
                own = _own(problem)
                if isinstance(own, UnansweredError) and (own.silent or own.status in _SLOW):
                    raise TooMuchError(str(own)) from problem
                if own is not None:
                    raise own from problem
                if isinstance(problem, DALQueryError) and _TIMED_OUT.search(str(problem)):
                    raise TooMuchError(_line(problem)) from problem
                if not isinstance(problem, DALFormatError):
                    raise TruemorphError(f'{service.url}: refuses the query: "{_line(problem)}"') from problem
                if tries >= _PAGES:
                    raise TruemorphError(
                        f"{service.url}: answered with something else than a VOTable ({_line(problem)}); try again "
                        "later, and if that stays so replace the address (--addresses)"
                    ) from problem
        service.patience.pause(service.patience.wait(tries))
    if any(issubclass(one.category, DALOverflowWarning) for one in caught) and most is not None:
        raise TooMuchError("the answer was cut at the service's limit")
    return result.to_table()


def ask(service: Tap, adql: str) -> Any:
    """Ask for little.

    Raises
    ------
    TruemorphError
    """
    try:
        return search(service, adql)
    except TooMuchError as problem:
        raise TruemorphError(f"{service.url}: {problem}; run the same again later") from problem


def _own(problem: BaseException) -> TruemorphError | None:
    """What the session said, that pyvo wrapped."""
    seen: list[BaseException] = []
    one: BaseException | None = problem
    while one is not None and one not in seen:
        if isinstance(one, TruemorphError):
            return one
        seen.append(one)
        one = one.__cause__ or one.__context__
    return None


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]
