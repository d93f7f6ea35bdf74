"""A small HTTP server that misbehaves on demand, and a proxy; on 127.0.0.1, on a free port, until the block ends.

with Server() as server:
    server.put("/table.csv", b"a,b\\n1,2\\n")
    server.script("/table.csv", busy(429, "1"), cut(3))   # the first two requests; the third is answered well
    url = server.url("/table.csv")
server.requests                                           # what was asked: method, path, parameters, headers, body
"""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import hashlib
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    params: dict[str, str]  # of the query, and of a form
    headers: Mapping[str, str]
    body: bytes
    when: float


@dataclass(frozen=True)
class Answer:
    """What is answered, and what goes wrong with it."""

    body: bytes | None = None  # None: what was put there
    status: int = 200
    type: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = ""  # "": of the body; None: neither ETag nor Last-Modified
    ranges: bool = True  # answers Range
    length: bool = True  # Content-Length; without, the connection's end is the body's
    chunked: bool = False
    encoded: bool = False  # Content-Encoding: gzip
    cut: int | None = None  # bytes of this body after which the connection is cut
    hang: float = 0.0  # seconds of silence before it is
    wait: float = 0.0  # seconds of silence before anything
    slow: float = 0.0  # seconds between pieces of 20,000 bytes


def busy(status: int = 503, retry_after: str | None = None) -> Answer:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return Answer(b"try later", status, "text/plain", headers, ranges=False)


def page(text: str = "We are down for maintenance.") -> Answer:
    body = f"<!DOCTYPE html>\n<html><head><title>Sorry</title></head><body><p>{text}</p></body></html>"
    return Answer(body.encode(), type="text/html", ranges=False)


def cut(after: int, hang: float = 0.0) -> Answer:
    return Answer(cut=after, hang=hang)


def redirect(to: str) -> Answer:
    return Answer(b"", 302, headers={"Location": to})


def http_date(seconds_from_now: float) -> str:
    return email.utils.formatdate(time.time() + seconds_from_now, usegmt=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        params = parse_qs(parts.query, keep_blank_values=True)
        if self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
            params |= parse_qs(body.decode(), keep_blank_values=True)
        request = Request(
            self.command,
            self.path if parts.scheme else parts.path,
            {name: values[-1] for name, values in params.items()},
            dict(self.headers),
            body,
            time.monotonic(),
        )
        with contextlib.suppress(ConnectionError, TimeoutError):  # the client went away
            self.server.owner.answer(self, request)

    do_POST = do_HEAD = do_PUT = do_DELETE = do_GET


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, owner: Server) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.owner.problems.append(f"{client_address}: request failed")
        super().handle_error(request, client_address)


class Server:
    """Files, functions and faults by path."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.problems: list[str] = []
        self._files: dict[str, Answer] = {}
        self._routes: dict[str, Callable[[Request], Answer | bytes]] = {}
        self._scripts: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listener = _Listener(self)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stopping.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listener.server_address[1]}"

    def url(self, path: str = "") -> str:
        return f"http://{self.host}{path}"

    def put(self, path: str, body: bytes, **answer: Any) -> str:
        """A file, and how it is answered whenever no script says otherwise; its address."""
        self._files[path] = Answer(body, **answer)
        return self.url(path)

    def route(self, path: str, function: Callable[[Request], Answer | bytes]) -> str:
        """Answers made by a function of the request, for that path."""
        self._routes[path] = function
        return self.url(path)

    def script(self, path: str, *answers: Answer) -> None:
        """What the next requests for a path get; an answer without a body gets the file's."""
        with self._lock:
            self._scripts.setdefault(path, []).extend(answers)

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def answer(self, handler: _Handler, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
            script = self._scripts.get(request.path)
            scripted = script.pop(0) if script else None
        usual = self._usual(request) if scripted is None or scripted.body is None else None
        if scripted is None:
            answer = usual
        elif scripted.body is None and usual is not None:
            keep = {name: getattr(usual, name) for name in ("body", "type")}
            answer = replace(scripted, **keep)
        else:
            answer = scripted
        self._send(handler, request, answer or Answer(b"not here", 404, "text/plain", ranges=False))

    def _usual(self, request: Request) -> Answer | None:
        if request.path in self._routes:
            made = self._routes[request.path](request)
            return made if isinstance(made, Answer) else Answer(made, ranges=False)
        return self._files.get(request.path)

    def _send(self, handler: _Handler, request: Request, answer: Answer) -> None:
        self._stopping.wait(answer.wait)
        body, status, headers = answer.body or b"", answer.status, {"Content-Type": answer.type} | answer.headers
        etag = f'"{hashlib.md5(body).hexdigest()}"' if answer.etag == "" else answer.etag
        if status == 200 and etag is not None:
            headers["ETag"] = etag
        if answer.encoded:
            body = gzip.compress(body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        fresh = request.headers.get("If-Range") in (None, etag)
        if status == 200 and answer.ranges:
            headers["Accept-Ranges"] = "bytes"
            if asked and fresh:
                first = int(asked[1])
                if first >= len(body):
                    status, headers["Content-Range"], body = 416, f"bytes */{len(body)}", b""
                else:
                    status, headers["Content-Range"] = 206, f"bytes {first}-{len(body) - 1}/{len(body)}"
                    body = body[first:]
        if answer.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif answer.length:
            headers["Content-Length"] = str(len(body))
        headers["Connection"] = "close"
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if request.method == "HEAD":
            return
        out = handler.wfile
        sent = body if answer.cut is None else body[: answer.cut]
        if answer.chunked:
            for start in range(0, len(sent), 1000):
                piece = sent[start : start + 1000]
                out.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if answer.cut is None:
                out.write(b"0\r\n\r\n")
        elif answer.slow:
            for start in range(0, len(sent), 20_000):
                out.write(sent[start : start + 20_000])
                self._stopping.wait(answer.slow)
        else:
            out.write(sent)
        out.flush()
        if answer.cut is not None:
            self._stopping.wait(answer.hang)
            handler.connection.shutdown(socket.SHUT_RDWR)


class Proxy(Server):
    """A proxy for http addresses: asks for them itself, without a proxy, and hands on what comes."""

    def answer(self, handler: _Handler, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(handler.path, timeout=5) as response:
            self._send(handler, request, Answer(response.read(), response.status, etag=None, ranges=False))
