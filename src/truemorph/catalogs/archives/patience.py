"""How often something is tried, how long is waited in between, and how fast one host is asked."""

from __future__ import annotations

import email.utils
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from truemorph.catalogs.archives.content import first_words
from truemorph.catalogs.archives.failures import AgainError, ComeBackError, UnansweredError

if TYPE_CHECKING:
    import requests

# What may go away by itself; any other status of 400 or more stays.
PASSING = {408, 425, 429, 500, 502, 503, 504}
# Seconds from which on a wait is told, and the longest that is believed (some thirty years).
_WORTH_SAYING = 2.0
_LONGEST = 1e9

Answer = TypeVar("Answer")
Sleep = Callable[[float], object]


def _time(date: str | None) -> float | None:
    """Seconds since 1970 of a date as HTTP writes it."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except (ValueError, OverflowError):
        return None


def retry_after(value: str | None, date: str | None = None) -> float | None:
    """Seconds that a Retry-After header asks to wait; None without one that can be read.

    Parameters
    ----------
    value : str or None
        Seconds, or a date.
    date : str or None
        When the server says it answered: its clock may be another than ours.

    Examples
    --------
    >>> retry_after("120")
    120.0
    >>> retry_after("Thu, 01 Jan 1970 00:02:00 GMT", "Thu, 01 Jan 1970 00:01:00 GMT")
    60.0
    >>> retry_after("soon") is None
    True
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return min(float(value), _LONGEST)
    then, now = _time(value), _time(date)
    return None if then is None else min(max(0.0, then - (time.time() if now is None else now)), _LONGEST)


class Pace:
    """At most so many requests a second to any one host; threads share it."""

    _now = staticmethod(time.monotonic)

    def __init__(self, per_second: float, sleep: Sleep) -> None:
        self._between, self._sleep = 1 / per_second, sleep
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait_turn(self, host: str) -> None:
        """Return when the next request to a host is due."""
        with self._lock:
            now = self._now()
            due = max(now, self._next.get(host, now))
            self._next[host] = due + self._between
        if due > now:
            self._sleep(due - now)


class Patience:
    """How often something is tried, and how long is waited in between."""

    def __init__(self, attempts: int, back_off: float, longest_wait: float, sleep: Sleep) -> None:
        self.attempts, self.back_off, self.longest_wait, self._sleep = attempts, back_off, longest_wait, sleep

    def wait(self, failed: int) -> float:
        """Seconds to wait after so many failures: doubled each time, and up to half of it less by chance.

        Without the chance, clients that failed together would come back together.
        """
        return min(self.back_off * 2.0 ** (failed - 1), self.longest_wait) * random.uniform(0.5, 1.0)

    def pause(self, seconds: float) -> None:
        """Wait, for a server that asks for it in words of its own."""
        self._sleep(seconds)

    def until(self, once: Callable[[], Answer], what: str) -> Answer:
        """Call `once` until it doesn't raise `AgainError`, or patience ends.

        Raises
        ------
        UnansweredError
            If no try worked.
        ComeBackError
            If the server asks for a longer wait than `longest_wait`.
        """
        failed = 0
        while True:
            try:
                return once()
            except AgainError as problem:
                failed = 1 if problem.gained else failed + 1
                if problem.wait is not None and problem.wait > self.longest_wait:
                    back = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() + problem.wait))
                    raise ComeBackError(
                        f"{what}: {problem}; the server asks to wait {problem.wait:,.0f} s: run the same again after "
                        f"{back}, what has arrived is kept"
                    ) from problem
                if failed >= self.attempts:
                    tries = "1 try" if self.attempts == 1 else f"{self.attempts} tries"
                    raise UnansweredError(
                        f"{what}: {problem} ({tries}); run the same again later, what has arrived is kept",
                        status=problem.status,
                        silent=problem.silent,
                        passing=True,
                    ) from problem
                # Never sooner than asked, and not all at that very second either.
                wait = max(self.wait(failed), (problem.wait or 0.0) + self.back_off * random.uniform(0.0, 0.5))
                if wait >= _WORTH_SAYING:
                    print(f"{what}: {problem}; again in {wait:,.0f} s", file=sys.stderr, flush=True)
                self._sleep(wait)


def passing(response: requests.Response, head: bytes = b"") -> AgainError:
    """What a status that may pass says, with the first words of its page: to be raised."""
    said = f"the server says HTTP {response.status_code} {response.reason or ''}".rstrip()
    words = first_words(head)
    return AgainError(
        said + (f' ("{words}")' if words else ""),
        retry_after(response.headers.get("Retry-After"), response.headers.get("Date")),
        status=response.status_code,
    )
