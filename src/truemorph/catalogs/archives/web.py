"""Asking remote servers politely: one place for retries, waiting, pace, proxies and being offline.

Proxies and certificates are taken from the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE), as
requests does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from truemorph._version import __version__
from truemorph.catalogs.archives.content import HEAD, check_head, first_words, known_kind, looks_cut
from truemorph.catalogs.archives.failures import AgainError, UnansweredError
from truemorph.catalogs.archives.patience import PASSING, Pace, Patience, passing
from truemorph.errors import InputError, TruemorphError

if TYPE_CHECKING:
    import requests

    from truemorph.catalogs.archives.session import PoliteSession

# Requests a second: less than one in some minutes is a slip.
_SLOWEST = 0.01
USER_AGENT = f"truemorph/{__version__} (python-requests; research software)"


class Web:
    """What every transfer goes through.

    Parameters
    ----------
    offline : bool
        Ask nobody; what isn't there already is an error that says where to get it.
    per_second : float
        Most requests a second to any one host, all threads of this process together.
    attempts : int
        Tries of one request before giving up.
    timeout : tuple of float
        Seconds to wait for a connection, and for the next bytes.
    back_off : float
        Seconds to wait after the first failure; doubled after each further one, and up to half less by chance.
    longest_wait : float
        Seconds; of a server that asks for a longer wait (Retry-After) an error says when to come back.
    sleep : callable
        What waits; tests put their own here.
    user_agent : str

    Raises
    ------
    InputError
        If a number is out of range, or the extra "archives" is not installed.

    Examples
    --------
    >>> web = Web(offline=True)
    >>> web.get("https://example.org/table.csv", what="the table")
    Traceback (most recent call last):
        ...
    truemorph.errors.TruemorphError: the table: not here, and this is offline; run the same with a network
    (it is at https://example.org/table.csv)
    """

    def __init__(
        self,
        *,
        offline: bool = False,
        per_second: float = 2.0,
        attempts: int = 5,
        timeout: tuple[float, float] = (15.0, 120.0),
        back_off: float = 1.0,
        longest_wait: float = 300.0,
        sleep: Callable[[float], object] = time.sleep,
        user_agent: str = USER_AGENT,
    ) -> None:
        try:
            from truemorph.catalogs.archives.session import PoliteSession
        except ImportError as problem:
            raise InputError("fetching needs requests: pip install 'truemorph[archives]'") from problem
        check_rate(per_second)
        if attempts < 1 or back_off < 0 or longest_wait < 0:
            raise InputError(f"attempts are 1 or more, waits 0 or more; got {attempts}, {back_off}, {longest_wait}")
        self.offline = offline
        self._polite = PoliteSession(
            Patience(attempts, back_off, longest_wait, sleep), Pace(per_second, sleep), timeout, offline, user_agent
        )

    @property
    def session(self) -> PoliteSession:
        """The same politeness for other clients (pyvo takes it): paced, retried, whole bodies."""
        return self._polite

    def get(
        self,
        url: str,
        params: Mapping[str, Any] | None = None,
        *,
        expect: str | None = None,
        ends: Callable[[bytes], object] | None = None,
        what: str = "",
    ) -> bytes:
        """The whole body of an answer.

        Parameters
        ----------
        url : str
        params : mapping, optional
            Of the query.
        expect : {"csv", "json", "votable", "image", "fits", "zip", "gzip"}, optional
            What the body must be, by its first bytes.
        ends : callable, optional
            Whether a body ends as a whole one does; asked of an answer that came with neither its length nor in chunks,
            for nothing else would show that the connection was cut.
        what : str
            What is asked for, in messages.

        Returns
        -------
        bytes

        Raises
        ------
        UnansweredError
            No whole answer after all tries; a status of 400 or more; or something else than `expect`, a page that says
            "maintenance", say.
        ComeBackError
            The server asks for a longer wait than `longest_wait`.
        TruemorphError
            Offline.
        InputError
            If the address or `expect` can't be one.
        """
        known_kind(expect)
        named = f"{what} ({url})" if what else url
        if self.offline:
            raise TruemorphError(
                f"{what or url}: not here, and this is offline; run the same with a network (it is at {url})"
            )

        def once() -> bytes:
            response = self.session.once("GET", url, params=params, stream=True)
            body = self.session.read(response)
            if response.status_code in PASSING:
                raise passing(response, body[:HEAD])
            check_status(response, named, body[:HEAD])
            check_head(body[:HEAD], expect, url)
            whole = ends is None or self.session.says_where_it_ends(response) or ends(body)
            if not whole or looks_cut(body[:HEAD], body[-HEAD:], len(body), expect):
                raise AgainError("the answer ends in the middle")
            return body

        return self.session.patience.until(once, named)


def check_rate(per_second: float) -> None:
    """Refuse a pace that is none, or at which nothing would ever arrive.

    Raises
    ------
    InputError
    """
    if not per_second >= _SLOWEST:  # neither is nan
        raise InputError(f"--rate is requests a second, {_SLOWEST:g} or more; got {per_second:g}")


def check_status(response: requests.Response, named: str, head: bytes) -> None:
    """Refuse an answer that no further try would change.

    Raises
    ------
    UnansweredError
    """
    status = response.status_code
    if status < 400:
        return
    advice = {
        401: "it wants a login",
        403: "it refuses; a proxy or firewall may be in the way",
        404: "nothing is there; it may have moved: replace the address (--addresses)",
        407: "the proxy wants a login: HTTP_PROXY=http://NAME:PASSWORD@HOST:PORT",
        410: "it is gone: replace the address (--addresses)",
        414: "the query is too long",
    }.get(status, "replace the address (--addresses) if that stays so")
    words = first_words(head)
    said = f"{named}: HTTP {status} {response.reason or ''}".rstrip() + (f' ("{words}")' if words else "")
    raise UnansweredError(f"{said}; {advice}", status=status, passing=status >= 500)
