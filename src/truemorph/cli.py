"""The command line: parse, run a command, print its findings and its summary or JSON, and turn errors into one line.

Every command is a public function of `truemorph.commands`; its signature and docstring are the options and the help.
"""

import ast
import inspect
import io
import json as json_text
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import reduce
from importlib.resources import files
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter, UnknownCommandError
from cyclopts.config import Dict

from truemorph import progress
from truemorph._version import __version__
from truemorph.commands import COMMANDS
from truemorph.errors import TruemorphError, extras_named
from truemorph.findings import FindingWarning
from truemorph.progress import say

# Commands of two words.
GROUPS = {"gold": "Choose galaxies for gold labels, and collect the labels."}
_ABOUT = """Unbiased galaxy morphologies from biased labels.

The usual order is fetch, prepare, bias, transition, train, label, report. To try it without data: truemorph demo"""
# What to do after a command, by its arguments.
_NEXT = {
    "prepare": "truemorph bias {out}",
    "bias": "truemorph transition {catalogue} --out transition.json (questions: --gold gold)",
    "transition": "truemorph label {out} {catalogue} --out labels.parquet (with images: truemorph train)",
    "train": "truemorph label {out} {catalogue} --out labels.parquet",
    "label": "truemorph report {model} --catalogue {source} --labels {out} --out report.html",
    "explain": "truemorph report {models} --out report.html",
    "gold plan": "truemorph gold label {out}",
    "gold label": "truemorph gold import {plan} --out catalogue-gold.parquet",
    "gold import": "truemorph transition {out} --gold gold --out transition.json",
}
_ALL = Group("All commands", sort_key=1000)
_CONFIG = "TOML file with options of commands, each in its table, such as [train]; options given here replace them."
_LEVELS = {"note": logging.INFO, "caution": logging.WARNING, "problem": logging.ERROR}
_ARGUMENT = re.compile(r"`(\w+)`(=\S*[\w\"])?")


def command_app(chosen: str | None = None) -> App:
    """Return the application; the help of the `chosen` command is its whole docstring."""
    app = App(
        name="truemorph",
        version=__version__,
        help=_ABOUT,
        help_format="markdown",
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        exit_on_error=False,
        print_error=False,
        default_parameter=Parameter(negative=(), show_default=_shown_default),
    )
    for order, (name, function) in enumerate(COMMANDS.items()):
        about = None if chosen else _about(function)
        group, _, last = name.rpartition(" ")
        if group and group not in app:
            app.command(App(name=group, help=GROUPS[group], sort_key=order))
        (app[group] if group else app).command(f"truemorph.commands.{function}", name=last, help=about, sort_key=order)
    app.register_install_completion_command(help="Let the shell complete commands and options.", sort_key=len(COMMANDS))
    app.meta.suppress_keyboard_interrupt = False

    @app.meta.default
    def shell(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        json: Annotated[bool, Parameter(help="Print the result as JSON.", group=_ALL)] = False,
        quiet: Annotated[bool, Parameter(help="Show neither progress nor notes.", group=_ALL)] = False,
        config: Annotated[Path | None, Parameter(help=_CONFIG, group=_ALL)] = None,
    ) -> None:
        progress.QUIET.set(quiet)
        if config is not None and chosen:
            tokens = _with_file(app, chosen, config, tokens)
        result = app(tokens)
        if result is None:  # help, or one of several processes that train together
            return
        options = options_of(app, chosen)
        for finding in result.findings:
            if not (quiet and finding.severity == "note"):
                say(f"{in_options(str(finding), options)} [{finding.code}]", _LEVELS[finding.severity])
        text = json_text.dumps(result.to_dict(), indent=2) if json else in_options(result.summary(), options)
        print(progress.printable(text), flush=True)
        if not (json or quiet) and getattr(result, "complete", True):
            _, bound, _ = app.parse_args(tokens)
            arguments = {**bound.arguments, "question": getattr(result, "question", bound.arguments.get("question"))}
            if following := next_command(chosen, arguments):
                print(f"Next: {following}")
        if getattr(result, "out", "") is None:
            say("note: nothing was written; name a file to keep the result (--out)")
        if result.failure:
            raise TruemorphError(result.failure)

    return app


def _with_file(app: App, command: str, file: Path, tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Let an application read the options in a file; return its arguments, with the unnamed ones of the file."""
    from truemorph.config import options_in

    options = options_in(file, command, COMMANDS)
    unnamed = list[Any]()
    for argument in reduce(getitem, command.split(), app).assemble_argument_collection():
        if argument.field_info.kind is inspect.Parameter.VAR_POSITIONAL:  # such as the runs of a report
            value = options.pop(argument.field_info.name, [])
            unnamed = value if isinstance(value, list) else [value]
    app.config = Dict(reduce(lambda inner, word: {word: inner}, command.split()[::-1], options), source=str(file))
    if unnamed and not app.parse_args(tokens)[1].args:
        tokens = (*tokens, "--", *map(str, unnamed))
    return tokens


def _about(function: str) -> str:
    """Return the first line of a command's docstring, without importing it."""
    module, _, name = function.partition(":")
    tree = ast.parse((files("truemorph.commands") / f"{module}.py").read_text(encoding="utf-8"))
    (definition,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return (ast.get_docstring(definition) or "").partition("\n")[0]


def _shown_default(value: Any) -> str | None:
    """Return a default for the help; none where an option is just not given."""
    if value in (None, False, (), {}):
        return None
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def next_command(command: str | None, arguments: Mapping[str, Any]) -> str:
    """Return what to do after a command; empty where its arguments do not say on which files."""
    following = _NEXT.get(command or "", "")
    values = {name: arguments.get(name) for name in re.findall(r"{(\w+)}", following)}
    if command == "transition" and values["out"]:  # the estimate beside a table
        values["out"] = Path(values["out"]).with_suffix(".json")
    prepared = all(str(values[name]).endswith(".parquet") for name in ("catalogue", "source") if name in values)
    of_question = command in ("bias", "transition") and arguments.get("question")
    if arguments.get("dry_run") or of_question or not prepared or None in values.values():
        return ""
    from truemorph.arguments import listed
    from truemorph.config import by_commas

    if command == "label" and str(values["model"]).endswith(".json"):  # a report of an estimate has its labels
        following = following.replace(" --labels {out}", "")
    filled = following.format_map({name: shlex.join(map(str, listed(value))) for name, value in values.items()})
    if command in ("gold import", "prepare") and (question := by_commas(arguments.get("question") or "")[0]):
        filled += f" --question {shlex.quote(question)}"
    return filled


def chosen_command(arguments: Sequence[str]) -> str | None:
    """Return the command among arguments, such as "gold plan"; None if there is none."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    named = (" ".join(words[k : k + n]) for k in range(len(words)) for n in (2, 1))
    return next((name for name in named if name in COMMANDS), None)


def options_of(app: App, command: str | None) -> dict[str, str]:
    """Return the options of a command by the names of the Python arguments."""
    if command is None:
        return {}
    arguments = reduce(getitem, command.split(), app).assemble_argument_collection()
    return {argument.field_info.name: argument.name for argument in arguments if argument.name.startswith("--")}


def in_options(text: str, options: Mapping[str, str]) -> str:
    r"""Replace Python arguments in backticks by the options of a command.

    Examples
    --------
    >>> in_options("Give gold labels (`gold`), or choose `family`=\"best\".", {"family": "--family"})
    'Give gold labels, or choose --family best.'
    """

    def option(match: re.Match[str]) -> str:
        name, value = match[1], (match[2] or "").lstrip("=").strip('"')
        return " ".join(filter(None, [options.get(name, name), value]))

    gone = re.sub(r" \(`(\w+)`(?:=\"\w+\")?\)", lambda match: match[0] if match[1] in options else "", text)
    return _ARGUMENT.sub(option, gone)


def _one_line(problem: CycloptsError) -> str:
    """Return the error of an option in one line; pydantic's messages have several."""
    errors = getattr(problem.__cause__, "errors", None)
    if errors is None:
        return str(problem)
    first = errors()[0]
    argument = getattr(problem, "argument", None)
    name = f"--{first['loc'][-1]}".replace("_", "-") if argument is None else argument.name
    return f"{name}: {first['msg'].lower()}; got {first['input']!r}"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print findings of array functions; warnings of libraries tell a user nothing."""
    if isinstance(message, FindingWarning):
        say(f"note: {message}")


def _end(status: int, text: str) -> NoReturn:
    """Say what is wrong, a message a line, and exit."""
    for line in text.splitlines():
        say(f"truemorph: {line}", logging.ERROR)
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: exit 2 for bad input, 1 for a failure, 130 for Ctrl-C."""
    warnings.showwarning = _show_warning
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115  # a service may have closed it
    if os.environ.get("COLUMNS", "").isdigit() and int(os.environ["COLUMNS"]) < 20:
        del os.environ["COLUMNS"]  # a width that no help fits, such as 0
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's own would keep memory that is freed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # Greek letters on a terminal that has none
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if "" in tokens:
        _end(2, f"the argument after {tokens[tokens.index('') - 1]} is empty; give a value")
    chosen = chosen_command(tokens)
    app = command_app(chosen)
    try:
        with extras_named():
            app.meta(tokens)
    except UnknownCommandError as problem:
        _end(2, f"no command {' '.join(problem.unused_tokens or [])!r}; commands: {', '.join(COMMANDS)}")
    except CycloptsError as problem:
        _end(2, f"{_one_line(problem)} (see truemorph {chosen or ''} --help)")
    except TruemorphError as problem:
        _end(problem.exit_code, in_options(str(problem), options_of(app, chosen)))
    except KeyboardInterrupt:
        _end(130, "interrupted")
    except UnicodeEncodeError as problem:  # Parquet, FITS and polars take no other names
        from truemorph.io import shown_path

        _end(2, f"{shown_path(problem.object)}: a file or folder name that is not UTF-8; rename it")
    except BrokenPipeError:  # the reader of the output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as problem:
        _end(1, f"{problem.filename or 'output'}: {problem.strerror or problem}")


if __name__ == "__main__":
    main()
