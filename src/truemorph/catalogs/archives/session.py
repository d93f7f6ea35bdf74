"""A requests session that is patient and polite: retries with back-off, waits when asked to, paces itself by host."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from truemorph.catalogs.archives.content import HEAD
from truemorph.catalogs.archives.failures import AgainError
from truemorph.catalogs.archives.patience import PASSING, Pace, Patience, passing
from truemorph.errors import InputError, TruemorphError

# Bytes: of a piece, and of a whole answer that is held in memory (files are written as they come).
CHUNK = 1 << 20
_MOST = 1 << 30


def failed(problem: BaseException, timeout: tuple[float, float]) -> AgainError:
    """What a failed transfer comes down to, without the library's wording: to be raised."""
    chain: list[BaseException] = []
    one: BaseException | None = problem
    while one is not None and one not in chain:
        chain.append(one)
        inner = getattr(one, "reason", None) or next((a for a in one.args if isinstance(a, BaseException)), None)
        one = inner if isinstance(inner, BaseException) else (one.__cause__ or one.__context__)

    def any_of(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    if any_of(requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
        return AgainError("the proxy does not answer (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)")
    if any_of(urllib3.exceptions.NameResolutionError):
        return AgainError("no such host is found (is there a network?)")
    if any_of(requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError) and not any_of(
        urllib3.exceptions.NewConnectionError
    ):
        return AgainError(f"no connection within {timeout[0]:g} s")
    if any_of(requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
        return AgainError(f"nothing came for {timeout[1]:g} s", silent=True)
    if any_of(urllib3.exceptions.NewConnectionError):
        return AgainError("no connection (refused or out of reach)")
    if any_of(requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError):
        return AgainError("the answer can't be decompressed")
    return AgainError("the connection was cut")


class _Adapter(HTTPAdapter):
    """Paces every request, those that follow a redirect too."""

    def __init__(self, pace: Pace) -> None:
        super().__init__(max_retries=0)
        self._pace = pace

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Wait for the host's turn, then send."""
        self._pace.wait_turn(urlsplit(request.url or "").netloc)
        return super().send(request, *args, **kwargs)


class _Body(io.BytesIO):
    """A body that has arrived whole, for clients that read a response's raw stream."""

    def read(self, size: int | None = -1, decode_content: bool | None = None) -> bytes:
        """Read; the body is decoded already."""
        return super().read(size)


class PoliteSession(requests.Session):
    """What other clients (pyvo, say) take for a session: each of their requests is paced, retried and read whole.

    Statuses that may pass are tried again; any other comes back as it is.
    """

    def __init__(self, patience: Patience, pace: Pace, timeout: tuple[float, float], offline: bool, agent: str) -> None:
        super().__init__()
        self.patience, self.timeout, self.offline = patience, timeout, offline
        self.headers["User-Agent"] = agent
        # Compressed on the way, a file can't be resumed, nor its length checked.
        self.headers["Accept-Encoding"] = "identity"
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(pace))

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send until an answer has come whole."""
        kwargs["stream"] = True

        def once() -> requests.Response:
            response = self.once(method, url, *args, **kwargs)
            body = self.read(response)
            if response.status_code in PASSING:
                raise passing(response, body[:HEAD])
            response.raw = _Body(body)
            return response

        return self.patience.until(once, url)

    def pieces(self, response: requests.Response) -> Iterator[bytes]:
        """The body of an answer that was asked for with `stream`, as it comes and as it was sent.

        Raises
        ------
        AgainError
            If it ends before it should.
        """
        try:
            # read1: what has come is handed on at once, and not lost when the connection is cut.
            while piece := response.raw.read1(CHUNK, decode_content=False):
                yield piece
        except urllib3.exceptions.HTTPError as problem:
            raise failed(problem, self.timeout) from problem

    @staticmethod
    def says_where_it_ends(response: requests.Response) -> bool:
        """Whether a cut connection would have been noticed: its length was said, or it came in chunks."""
        return "Content-Length" in response.headers or bool(response.raw.chunked)

    def read(self, response: requests.Response) -> bytes:
        """The whole body of an answer that was asked for with `stream`, decoded; closes it.

        Raises
        ------
        AgainError
            If it ends before it should.
        TruemorphError
            If it has no end.
        """
        pieces, size = [], 0
        with response:
            try:
                for piece in response.raw.stream(CHUNK, decode_content=True):
                    pieces.append(piece)
                    size += len(piece)
                    if size > _MOST:
                        raise TruemorphError(
                            f"{response.url}: more than {_MOST:,d} bytes came, which is more than any answer has; "
                            "replace the address (--addresses)"
                        )
            except urllib3.exceptions.HTTPError as problem:
                raise failed(problem, self.timeout) from problem
        return b"".join(pieces)

    def once(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        """Send once.

        Raises
        ------
        AgainError
            If there was no answer.
        InputError
            If the address can't be one.
        TruemorphError
            If trying again wouldn't help, or this is offline.
        """
        if self.offline:
            raise TruemorphError(f"{url}: not asked, for this is offline; run the same with a network")
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        exceptions = requests.exceptions
        try:
            return super().request(method, url, *args, **kwargs)
        except exceptions.SSLError as problem:
            raise TruemorphError(
                f"{url}: the server's certificate isn't trusted; where a proxy puts its own in place, name that "
                "certificate in REQUESTS_CA_BUNDLE"
            ) from problem
        except exceptions.TooManyRedirects as problem:
            raise TruemorphError(f"{url}: redirected in circles; replace the address (--addresses)") from problem
        except (exceptions.InvalidURL, exceptions.MissingSchema, exceptions.InvalidSchema) as problem:
            raise InputError(f"{url}: not an address that can be asked; replace it (--addresses)") from problem
        except (exceptions.RequestException, urllib3.exceptions.HTTPError) as problem:
            raise failed(problem, self.timeout) from problem
