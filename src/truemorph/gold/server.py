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
from typing import TYPE_CHECKING, Any

from PIL import Image

from truemorph.errors import InputError
from truemorph.gold.answers import (
    CHOICES,
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
_LONGEST_NAME, _LONGEST_NOTE = 60, 1000
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
    """The page and what it asks for, all below `/token/`.

    Raises
    ------
    InputError
        If starlette is not installed.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
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

    def page(_: Request) -> Response:
        return HTMLResponse(html, headers=headers)

    def state(request: Request) -> Response:
        annotator = _name(request.query_params.get("name"))
        given = answers_of(session.folder, annotator)
        answers = [given.get(item) for item in items(annotator)]
        better = [galaxy in session.better for galaxy, _ in items(annotator)]
        counts = progress(annotator)
        return JSONResponse({"answers": answers, "better": better, "errors": session.errors, **counts}, headers=headers)

    def image(request: Request) -> Response:
        galaxy, occasion = item_of(_name(request.query_params.get("name")), request.query_params.get("item"))
        path = session.better.get(galaxy) if "better" in request.query_params else session.picture(galaxy, occasion)
        if path is None:
            raise InputError("this galaxy has no better image")
        content, kind = _for_browsers(path)
        # The address of a picture is used once: its token is random.
        return Response(content, media_type=kind, headers=headers | {"Cache-Control": "private, max-age=86400"})

    async def answer(request: Request) -> Response:
        given = await _sent(request)
        annotator = _name(given.get("name"))
        galaxy, occasion = item_of(annotator, given.get("item"))
        note, seconds = _note(given), given.get("seconds", 0)
        if given.get("answer") not in CHOICES:
            raise InputError(f"an answer is one of {', '.join(CHOICES)}; got {given.get('answer')!r}")
        if not isinstance(seconds, int | float) or not 0 <= seconds < 1e6:
            raise InputError(f"seconds are a number from 0; got {seconds!r}")
        await run_in_threadpool(
            record_answer, session.folder, annotator, galaxy, occasion, given["answer"], note, float(seconds)
        )
        return JSONResponse(await run_in_threadpool(progress, annotator), headers=headers)

    async def note(request: Request) -> Response:
        given = await _sent(request)
        annotator = _name(given.get("name"))
        galaxy, occasion = item_of(annotator, given.get("item"))
        await run_in_threadpool(record_note, session.folder, annotator, galaxy, occasion, _note(given))
        return JSONResponse({}, headers=headers)

    async def undo(request: Request) -> Response:
        annotator = _name((await _sent(request)).get("name"))
        undone = await run_in_threadpool(undo_answer, session.folder, annotator)
        place = items(annotator).index(undone) if undone in items(annotator) else None
        return JSONResponse({"item": place, **await run_in_threadpool(progress, annotator)}, headers=headers)

    def item_of(annotator: str, number: Any) -> tuple[str, str]:
        if not str(number).isdecimal() or int(number) >= len(items(annotator)):
            raise InputError(f"there is no picture {number!r}")
        return items(annotator)[int(number)]

    def progress(annotator: str) -> dict[str, int]:
        done, labelled = count_answers(session.folder, annotator)
        return {"done": done, "labelled": labelled}

    def refused(_: Request, problem: Exception) -> Response:
        return JSONResponse({"error": str(problem)}, 400 if isinstance(problem, InputError) else 500, headers=headers)

    def absent(_: Request, __: Exception) -> Response:
        text = "Nothing here. Open the address that truemorph gold label has printed, as it is."
        return PlainTextResponse(text, 404, headers=headers)

    inside = [
        Route("/", page),
        Route("/state", state),
        Route("/image", image),
        Route("/answer", answer, methods=["POST"]),
        Route("/note", note, methods=["POST"]),
        Route("/undo", undo, methods=["POST"]),
    ]
    return Starlette(
        routes=[Mount(f"/{token}", routes=inside)],
        exception_handlers={InputError: refused, sqlite3.Error: refused, OSError: refused, 404: absent},
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


def _name(given: Any) -> str:
    name = " ".join(given.split()) if isinstance(given, str) else ""
    if not 0 < len(name) <= _LONGEST_NAME:
        raise InputError(f"give a name of 1 to {_LONGEST_NAME} characters")
    return name


def _note(given: dict[str, Any]) -> str:
    note = given.get("note", "")
    if not isinstance(note, str) or len(note) > _LONGEST_NOTE:
        raise InputError(f"a note is text of at most {_LONGEST_NOTE:,} characters")
    return note.strip()


async def _sent(request: Request) -> dict[str, Any]:
    try:
        given = await request.json()
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise InputError("send a JSON object")
    return given


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
