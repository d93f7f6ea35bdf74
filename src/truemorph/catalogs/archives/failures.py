"""What goes wrong between here and a server, told apart by what helps: classes and statuses, not words."""

from __future__ import annotations

from truemorph.errors import TruemorphError


class AgainError(Exception):
    """Something that may go away when tried again.

    Attributes
    ----------
    wait : float or None
        Seconds the server asked to wait.
    gained : bool
        Whether this try brought something, so that the next counts as the first.
    status : int or None
        HTTP status, where there was one.
    silent : bool
        Whether nothing came in time.
    """

    def __init__(
        self,
        why: str,
        wait: float | None = None,
        gained: bool = False,
        *,
        status: int | None = None,
        silent: bool = False,
    ) -> None:
        super().__init__(why)
        self.wait, self.gained, self.status, self.silent = wait, gained, status, silent


class ComeBackError(TruemorphError):
    """A server wants to be left alone for longer than is waited: nothing else may be asked of it in this run."""


class UnansweredError(TruemorphError):
    """A request that brought nothing of use.

    Attributes
    ----------
    status : int or None
        HTTP status, where there was one.
    silent : bool
        Whether nothing came in time.
    page : bool
        Whether a page (or another kind of file) came in place of what was asked for.
    passing : bool
        Whether it may be different later, for all requests: it says nothing against this one.
    """

    def __init__(
        self, text: str, *, status: int | None = None, silent: bool = False, page: bool = False, passing: bool = False
    ) -> None:
        super().__init__(text)
        self.status, self.silent, self.page, self.passing = status, silent, page, passing
