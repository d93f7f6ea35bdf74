"""The local page on which people label the galaxies of a plan: starlette and uvicorn on 127.0.0.1."""

from __future__ import annotations

import io
import os
import re
import secrets
import socket
import sqlite3
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from PIL import Image

from truemorph.errors import InputError
from truemorph.gold.answers import TWIN, answers_of, record_answer, undo_answer
from truemorph.gold.session import Session
from truemorph.images.decode import decode, read_image_file

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.requests import Request
    from starlette.responses import Response

_HOST = "127.0.0.1"
# Another port where it is forwarded from another computer.
_HOSTS = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")
_LONGEST_NAME = 60
_HEADERS = {"Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store"}
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"


def serve(session: Session, port: int) -> None:
    """Serve the page until Ctrl-C."""
    import uvicorn

    token = secrets.token_urlsafe(16)
    config = uvicorn.Config(make_app(session, token), log_level="error", lifespan="off", timeout_graceful_shutdown=2)
    try:
        listener = socket.create_server((_HOST, port))
    except OSError as problem:
        why = os.strerror(problem.errno or 0)
        raise InputError(
            f"port {port} can't be used ({why}); end another truemorph gold label, or choose another (`port`)"
        ) from problem
    with listener:
        server = uvicorn.Server(config)
        # In a thread, because a notebook runs an event loop of its own in the main one.
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        address = f"http://{_HOST}:{listener.getsockname()[1]}/{token}/"
        print(f"Open {address} in a browser. Ctrl-C ends labelling; answers are kept.", file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):
            # Not join(): if interrupted, it takes a running thread for one that has ended (Python 3.11).
            while thread.is_alive():
                time.sleep(0.2)
        server.should_exit = True
        thread.join()


@dataclass(frozen=True)
class _Pages:
    """What the page asks for."""

    session: Session

    def _item(self, request: Request) -> tuple[str, str, str]:
        """Person, galaxy and occasion."""
        annotator, number = _name(request), request.query_params.get("item", "")
        items = self.session.items(annotator)
        if not number.isdecimal() or int(number) >= len(items):
            raise InputError(f"there is no picture {number!r}")
        return annotator, *items[int(number)]

    def _better(self, galaxy: str, occasion: str) -> Path | None:
        return None if occasion == TWIN else self.session.better.get(galaxy)  # a twin tests the degraded picture alone

    def state(self, request: Request, **more: int | None) -> Response:
        """What a person has answered, and what is asked."""
        from starlette.responses import JSONResponse

        session, annotator = self.session, _name(request)
        items = session.items(annotator)
        answers, labelled = answers_of(session.folder, annotator)
        content = {
            "answers": [answers.get(item) for item in items],
            "better": [self._better(*item) is not None for item in items],
            "labelled": labelled,
            "galaxies": len(session.images),
            "error": max(session.about.predicted),  # after all labels
            "classes": session.about.classes,
            "definition": session.about.definition,
        }
        if session.levels is not None:
            content["levels"] = session.levels
        return JSONResponse(content | more, headers=_HEADERS)

    def page(self, _: Request) -> Response:
        """The page itself."""
        from starlette.responses import HTMLResponse

        html = (files("truemorph.gold") / "templates" / "label.html").read_text(encoding="utf-8")
        nonce = secrets.token_urlsafe(16)  # the page's own style and script alone
        policy = (
            f"default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'nonce-{nonce}'; "
            f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(html.replace("NONCE", nonce), headers=_HEADERS | {"Content-Security-Policy": policy})

    def image(self, request: Request) -> Response:
        """The picture of a galaxy, or its better one."""
        from starlette.responses import Response

        _, galaxy, occasion = self._item(request)
        path: Path | None = self.session.twins[galaxy] if occasion == TWIN else self.session.images[galaxy]
        if "better" in request.query_params:
            path = self._better(galaxy, occasion)
        if path is None:
            raise InputError("this galaxy has no better image")
        content, kind = _for_browsers(path)
        # Another session has another token, and so other addresses.
        return Response(content, media_type=kind, headers=_HEADERS | {"Cache-Control": "private, max-age=86400"})

    def answer(self, request: Request) -> Response:
        """Record an answer."""
        (annotator, galaxy, occasion), sent = self._item(request), request.query_params
        seconds, better = float(sent.get("seconds", 0)), self._better(galaxy, occasion) is not None
        note = sent.get("note", "")
        record_answer(self.session.folder, annotator, galaxy, occasion, sent.get("answer", ""), note, seconds, better)
        return self.state(request)

    def undo(self, request: Request) -> Response:
        """Withdraw a person's last answer."""
        annotator = _name(request)
        undone, items = undo_answer(self.session.folder, annotator), self.session.items(annotator)
        return self.state(request, item=items.index(undone) if undone in items else None)


def make_app(session: Session, token: str) -> Starlette:
    """The page and what it asks for, all below `/token/`; other addresses, and other sites, get a 404."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Mount, Route

    pages = _Pages(session)

    def refused(_: Request, problem: Exception) -> Response:
        return JSONResponse({"error": str(problem)}, 400 if isinstance(problem, ValueError) else 500, headers=_HEADERS)

    def absent(_: Request, __: Exception) -> Response:
        text = "Nothing here. Open the address that truemorph gold label has printed, as it is."
        return PlainTextResponse(text, 404, headers=_HEADERS)

    async def own_site(request: Request, follow: RequestResponseEndpoint) -> Response:
        """Refuse what a browser sends for another site: under its name (Host), or from one of its pages (Origin)."""
        host = request.headers.get("host", "")
        if _HOSTS.fullmatch(host) and request.headers.get("origin", f"http://{host}") == f"http://{host}":
            return await follow(request)
        return absent(request, InputError("another site"))

    inside = [Route("/", pages.page), Route("/state", pages.state), Route("/image", pages.image)]
    inside += [Route("/answer", pages.answer, methods=["POST"]), Route("/undo", pages.undo, methods=["POST"])]
    return Starlette(
        routes=[Mount(f"/{token}", routes=inside)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=own_site)],
        exception_handlers={ValueError: refused, sqlite3.Error: refused, OSError: refused, 404: absent},
    )


def _name(request: Request) -> str:
    name = " ".join(request.query_params.get("name", "").split())
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise InputError(f"give a name of 1 to {_LONGEST_NAME} characters that can be printed")
    return name


def _for_browsers(path: Path) -> tuple[bytes, str]:
    """Content and type of a picture; FITS images, which browsers can't show, as PNG."""
    content = read_image_file(path)
    if content.startswith(_JPEG):
        return content, "image/jpeg"
    if content.startswith(_PNG):
        return content, "image/png"
    out = io.BytesIO()
    Image.fromarray(decode(content, path.name)).save(out, format="PNG", compress_level=1)
    return out.getvalue(), "image/png"
