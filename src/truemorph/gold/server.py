"""The local page on which people label the galaxies of a plan: starlette and uvicorn on 127.0.0.1."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import re
import secrets
import socket
import sqlite3
import sys
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from PIL import Image

from truemorph.errors import InputError
from truemorph.gold.answers import (
    TWIN,
    answers_of,
    count_answers,
    kept_open,
    record_answer,
    record_note,
    undo_answer,
)
from truemorph.gold.session import Session
from truemorph.images.decode import decode, read_image_file

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_HOST = "127.0.0.1"
_LONGEST_NAME = 60
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"


def serve(session: Session, port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises
    ------
    InputError
        If the port is in use.
    """
    import uvicorn

    token = secrets.token_urlsafe(16)
    config = uvicorn.Config(make_app(session, token), log_level="error", lifespan="off", timeout_graceful_shutdown=2)
    with _listening(port) as listener, kept_open(session.folder):
        server, ended = uvicorn.Server(config), Event()

        def run() -> None:
            try:
                server.run([listener])
            finally:
                ended.set()

        # In a thread, because a notebook runs an event loop of its own in the main one.
        Thread(target=run).start()
        address = f"http://{_HOST}:{listener.getsockname()[1]}/{token}/"
        print(f"Open {address} in a browser. Ctrl-C ends labelling; answers are kept.", file=sys.stderr, flush=True)
        try:
            # Not join(): if interrupted, it takes a running thread for one that has ended (Python 3.11).
            while not ended.wait(0.5):
                pass
        except KeyboardInterrupt:
            pass
        finally:
            server.should_exit = True
            ended.wait()


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    if sys.platform != "win32":  # there it would share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        listener.listen()
    except OSError as problem:
        listener.close()
        if problem.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {port} is in use, perhaps by another truemorph gold label; end that, or choose another (`port`)"
            ) from problem
        raise InputError(f"port {port} can't be used: {problem.strerror}; choose another (`port`)") from problem
    return listener


def make_app(session: Session, token: str) -> Starlette:
    """The page and what it asks for, all below `/token/`."""
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Mount, Route

    items = lru_cache(session.items)
    html, policy = _page()
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }

    def item_of(request: Request) -> tuple[str, str, str]:
        """Person, galaxy and occasion."""
        annotator, number = _name(request), request.query_params.get("item", "")
        if not number.isdecimal() or int(number) >= len(items(annotator)):
            raise InputError(f"there is no picture {number!r}")
        return annotator, *items(annotator)[int(number)]

    def counts(annotator: str) -> dict[str, int]:
        done, labelled = count_answers(session.folder, annotator)
        return {"done": done, "labelled": labelled}

    def page(_: Request) -> Response:
        return HTMLResponse(html, headers=headers)

    def state(request: Request) -> Response:
        annotator = _name(request)
        given = answers_of(session.folder, annotator)
        content = {
            "answers": [given.get(item) for item in items(annotator)],
            "better": [galaxy in session.better and which != TWIN for galaxy, which in items(annotator)],
            "errors": session.errors,
        }
        return JSONResponse(content | counts(annotator), headers=headers)

    def image(request: Request) -> Response:
        _, galaxy, occasion = item_of(request)
        beside = session.better.get(galaxy) if occasion != TWIN else None  # a twin tests the degraded picture alone
        path = beside if "better" in request.query_params else session.picture(galaxy, occasion)
        if path is None:
            raise InputError("this galaxy has no better image")
        content, kind = _for_browsers(path)
        # Another session has another token, and so other addresses.
        return Response(content, media_type=kind, headers=headers | {"Cache-Control": "private, max-age=86400"})

    def answer(request: Request) -> Response:
        item, sent = item_of(request), request.query_params
        seconds, better = float(sent.get("seconds", 0)), item[1] in session.better and item[2] != TWIN
        record_answer(session.folder, *item, sent["answer"], sent.get("note", ""), seconds, better)
        return JSONResponse(counts(item[0]), headers=headers)

    def note(request: Request) -> Response:
        record_note(session.folder, *item_of(request), request.query_params["note"])
        return JSONResponse({}, headers=headers)

    def undo(request: Request) -> Response:
        annotator = _name(request)
        undone = undo_answer(session.folder, annotator)
        place = items(annotator).index(undone) if undone in items(annotator) else None
        return JSONResponse({"item": place, **counts(annotator)}, headers=headers)

    def refused(_: Request, problem: Exception) -> Response:
        return JSONResponse({"error": str(problem)}, 400 if isinstance(problem, ValueError) else 500, headers=headers)

    def absent(_: Request, __: Exception) -> Response:
        text = "Nothing here. Open the address that truemorph gold label has printed, as it is."
        return PlainTextResponse(text, 404, headers=headers)

    inside = [Route("/", page), Route("/state", state), Route("/image", image)]
    inside += [Route(f"/{one.__name__}", one, methods=["POST"]) for one in (answer, note, undo)]
    return Starlette(
        routes=[Mount(f"/{token}", routes=inside)],
        exception_handlers={ValueError: refused, sqlite3.Error: refused, OSError: refused, 404: absent},
    )


def _page() -> tuple[str, str]:
    """The page, and the content security policy that allows its own style and script alone."""
    html = (files("truemorph.gold") / "templates" / "label.html").read_text(encoding="utf-8")

    def digest(tag: str) -> str:
        found = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert found is not None
        return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src {digest('style')}; "
        f"script-src {digest('script')}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _name(request: Request) -> str:
    name = " ".join(request.query_params.get("name", "").split())
    if not 0 < len(name) <= _LONGEST_NAME:
        raise InputError(f"give a name of 1 to {_LONGEST_NAME} characters")
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
