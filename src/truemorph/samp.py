"""Tables sent to TOPCAT, Aladin or DS9 through SAMP, the protocol by which astronomical programs exchange data."""

import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from truemorph.errors import InputError, TruemorphError
from truemorph.tables import read_table, write_table

_LOAD = "table.load.votable"
# Seconds in which a program should have loaded the table.
_PATIENCE = 120
_START = "start TOPCAT, Aladin or DS9, and send the table again"


def sent(source: Any, name: str, to: str | None = None) -> tuple[str, dict[str, Any]]:
    """Send a table of any kind as a VOTable, wait until it is loaded, and return what was sent, as text and as values.

    `name` is that of the table in the programs; `to`, a part of a program's name, chooses among them.
    """
    table = read_table(source)
    try:
        with warnings.catch_warnings(action="ignore"):  # astropy 8 says that it will move
            samp = import_module("astropy.samp")
    except ImportError:
        samp = import_module("pyvo.samp")
    client = samp.SAMPIntegratedClient(name="truemorph", description="Unbiased galaxy morphologies from biased labels")
    try:
        client.connect()
    except samp.SAMPHubError as problem:
        raise TruemorphError(f"no SAMP hub is running: {_START}") from problem
    try:
        receivers = _receivers(client, to)
        with tempfile.TemporaryDirectory(prefix="truemorph-") as folder:
            file = write_table(table, Path(folder) / "table.vot")
            message = {"url": file.as_uri(), "name": name, "table-id": f"truemorph {name}"}
            answers: Queue[dict[str, Any]] = Queue()
            # Not call-and-wait: astropy's hub can lose an answer that comes at once.
            client.bind_receive_response(_LOAD, lambda key, responder, tag, answer: answers.put(answer))
            for receiver, program in receivers.items():
                client.ecall(receiver, _LOAD, _LOAD, **message)
                try:
                    answer = answers.get(timeout=_PATIENCE)
                except Empty as problem:
                    raise TruemorphError(f"{program} did not load {name} within {_PATIENCE} s") from problem
                if answer["samp.status"] == "samp.error":
                    why = answer.get("samp.error", {}).get("samp.errortxt", "it did not say why")
                    raise TruemorphError(f"{program} could not load {name}: {why}")
    finally:
        client.disconnect()
    rows, columns = table.frame.shape
    programs = list(receivers.values())
    text = f"Sent {name} ({rows:,} rows, {columns} columns) to {', '.join(programs)}"
    return text, {"name": name, "rows": rows, "columns": columns, "programs": programs}


def _receivers(client: Any, to: str | None) -> dict[str, str]:
    """Return ids and names of the programs to send to."""
    names = {key: str(client.get_metadata(key).get("samp.name", key)) for key in client.get_subscribed_clients(_LOAD)}
    if not names:
        raise TruemorphError(f"no program that loads tables is connected to the SAMP hub: {_START}")
    chosen = {client_id: name for client_id, name in names.items() if to is None or to.lower() in name.lower()}
    if not chosen:
        raise InputError(
            f"no program named {to!r} is connected to the SAMP hub; connected: {', '.join(names.values())}"
        )
    return chosen
