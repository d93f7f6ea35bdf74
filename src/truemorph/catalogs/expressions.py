r"""Expressions over columns, written in SQL: "a_count" / ("a_count" + "b_count").

A mapping may come from someone else, and is to do no more than compute on one row: so SQL is read here, not handed
to an engine that also knows subqueries, files, sums over rows and patterns of columns. `evaluating` computes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

import polars as pl
from polars.exceptions import PanicException, PolarsError

from truemorph.catalogs.evaluating import FUNCTIONS, TYPES, Node, WrongKindError, evaluate
from truemorph.errors import InputError, nearest

LONGEST, MOST_WORDS, DEEPEST = 4000, 300, 40
_RESERVED = (
    *("and", "or", "not", "in", "is", "between", "like", "ilike", "case", "when", "then", "else", "end", "as"),
    *("null", "true", "false"),
)
_PARTS = re.compile(
    r"""\s+
    | (?P<quoted>"(?:[^"]|"")+")
    | (?P<text>'(?:[^']|'')*')
    | (?P<number>(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][-+]?\d++)?+(?![\w.]))
    | (?P<word>[A-Za-z_]\w*)
    | (?P<sign><=|>=|<>|!=|==|\|\||[-+*/%<>=(),])
    """,
    re.VERBOSE,
)
_SPACE = re.compile(r"""("[^"]*"|'[^']*')|\s+""")
_COMPARISONS = ("<", "<=", ">", ">=", "=", "==", "<>", "!=")
_QUOTES = "names with more than letters, digits and _ go in double quotes"
_CHAINED = "compares what is a comparison already; write x BETWEEN 14 AND 15, or 14 < x AND x < 15"


@dataclass(frozen=True)
class Expression:
    """An expression that has been read.

    Attributes
    ----------
    text : str
        As it was written, on one line.
    columns : tuple of str
        Names that it needs, in the order of their first use.
    lone : bool
        Whether it is a column's name and nothing else.
    tree : Node
    """

    text: str
    columns: tuple[str, ...]
    lone: bool
    tree: Node

    @property
    def said(self) -> str:
        """The text, short enough for a message."""
        return _said(self.text)


def _said(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def column_expression(name: str) -> Expression:
    """The expression that is one column.

    Examples
    --------
    >>> column_expression("b/a").columns
    ('b/a',)
    """
    return Expression(name, (name,), True, Node("column", name))


def read_expression(text: str, where: str) -> Expression:
    """Read an expression, and refuse what is more than one.

    Parameters
    ----------
    text : str
        Names of columns (in double quotes where they hold more than letters, digits and _), numbers, text in single
        quotes, + - * / %, comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, IS NULL, CASE WHEN … THEN … ELSE … END, and
        the functions in `FUNCTIONS`. At most 4,000 characters, 300 words and 40 brackets deep.
    where : str
        What the expression is for, to begin messages with.

    Raises
    ------
    InputError
        If it holds anything else, or doesn't parse.

    Examples
    --------
    >>> read_expression('a_count / ("a_count" + b)', "[columns.smooth_fraction]").columns
    ('a_count', 'b')
    """
    if len(text) > LONGEST:
        raise InputError(f"{where}: an expression has at most {LONGEST:,d} characters; {_said(text)!r} has {len(text)}")
    reader = _Reader(text, where)
    tree = reader.whole()
    one_line = _SPACE.sub(lambda found: found[1] or " ", text).strip()
    lone = tree.kind == "column"
    return Expression(tree.value if lone else one_line, tuple(dict.fromkeys(reader.columns)), lone, tree)


class _Reader:
    """Reads an expression from left to right; what binds closer is read deeper."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.columns: list[str] = []
        self.depth = self.at = 0
        self.parts = self._cut()

    def _cut(self) -> list[tuple[str, str]]:
        parts: list[tuple[str, str]] = []
        at = 0
        while at < len(self.text):
            found = _PARTS.match(self.text, at)
            if found is None:
                rest = " ".join(self.text[at : at + 12].split())
                self.refuse(
                    f"can't read {_said(self.text)!r} from {rest!r} on; expressions are SQL over columns; {_QUOTES}"
                )
            if found.lastgroup is not None:
                # SQL would take what follows two minus signs for a comment, and drop it.
                if found.group() == "-" and parts and parts[-1] == ("sign", "-"):
                    self.refuse(f"two minus signs in a row in {_said(self.text)!r}; write a - (-b)")
                parts.append((found.lastgroup, found.group()))
            at = found.end()
        if not parts:
            self.refuse("the expression is empty")
        if len(parts) > MOST_WORDS:
            self.refuse(f"an expression has at most {MOST_WORDS} words; {_said(self.text)!r} has {len(parts)}")
        return parts

    def refuse(self, why: str) -> NoReturn:
        raise InputError(f"{self.where}: {why}")

    def stuck(self) -> NoReturn:
        at = f"at {' '.join(self.parts[self.at][1].split())!r}" if self.at < len(self.parts) else "at its end"
        self.refuse(f"can't read {_said(self.text)!r} {at}; {_QUOTES}")

    def next_is(self, *signs: str) -> bool:
        if self.at >= len(self.parts):
            return False
        kind, part = self.parts[self.at]
        return kind in ("sign", "word") and part.lower() in signs

    def take(self, *signs: str) -> str | None:
        if not self.next_is(*signs):
            return None
        self.at += 1
        return self.parts[self.at - 1][1].lower()

    def need(self, sign: str) -> None:
        if self.take(sign) is None:
            self.stuck()

    def whole(self) -> Node:
        tree = self.either()
        if self.at < len(self.parts):
            self.stuck()
        return tree

    def either(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            self.refuse(f"{_said(self.text)!r} is more than {DEEPEST} brackets deep; write it shorter")
        tree = self.both()
        while self.take("or"):
            tree = Node("or", None, (tree, self.both()))
        self.depth -= 1
        return tree

    def both(self) -> Node:
        tree = self.negated()
        while self.take("and"):
            tree = Node("and", None, (tree, self.negated()))
        return tree

    def negated(self) -> Node:
        turns = 0
        while self.take("not"):
            turns += 1
        tree = self.compared()
        return Node("not", None, (Node("not", None, (tree,)),) if turns % 2 == 0 else (tree,)) if turns else tree

    def compared(self) -> Node:
        left = self.sum()
        tree = self._comparison(left)
        if tree is not left and (
            self.next_is(*_COMPARISONS, "in", "between", "like", "ilike")
            or (tree.kind == "compare" and tree.value in _COMPARISONS[:4] and any(map(_compares, tree.parts)))
        ):
            self.refuse(f"{_said(self.text)!r} {_CHAINED}")
        return tree

    def _comparison(self, left: Node) -> Node:
        sign = self.take(*_COMPARISONS)
        if sign:
            return Node("compare", sign, (left, self.sum()))
        if self.take("is"):
            turned = bool(self.take("not"))
            what = self.take("null", "true", "false") or self.stuck()
            tree = Node("is", what, (left,))
            return Node("not", None, (tree,)) if turned else tree
        turned = self.next_is("not") and self.at + 1 < len(self.parts) and bool(self.take("not"))
        if self.take("in"):
            self.need("(")
            tree = Node("in", None, (left, *(self.arguments() or self.stuck())))
        elif self.take("between"):
            low = self.sum()
            self.need("and")
            tree = Node("between", None, (left, low, self.sum()))
        elif self.next_is("like", "ilike"):
            sign = self.take("like", "ilike")
            tree = Node(str(sign), None, (left, self.sum()))
        elif turned:
            self.stuck()
        else:
            return left
        return Node("not", None, (tree,)) if turned else tree

    def sum(self) -> Node:
        tree = self.product()
        while sign := self.take("+", "-", "||"):
            tree = Node("function", "concat", (tree, self.product())) if sign == "||" else self._of(sign, tree, True)
        return tree

    def product(self) -> Node:
        tree = self.signed()
        while sign := self.take("*", "/", "%"):
            tree = self._of(sign, tree, False)
        return tree

    def _of(self, sign: str, left: Node, adds: bool) -> Node:
        return Node("arithmetic", sign, (left, self.product() if adds else self.signed()))

    def signed(self) -> Node:
        turns = False
        while sign := self.take("-", "+"):
            turns ^= sign == "-"
        tree = self.single()
        if turns and tree.kind == "number":
            return Node("number", -tree.value)
        return Node("arithmetic", "-", (Node("number", 0), tree)) if turns else tree

    def single(self) -> Node:
        if self.at >= len(self.parts):
            self.stuck()
        kind, part = self.parts[self.at]
        if self.take("("):
            tree = self.either()
            self.need(")")
            return tree
        if kind == "sign":
            self.stuck()
        self.at += 1
        if kind == "number":
            return Node("number", _number(part) if _number(part) is not None else self.refuse(f"{part} is too large"))
        if kind == "text":
            return Node("text", part[1:-1].replace("''", "'"))
        if kind == "quoted":
            return self.column(part[1:-1].replace('""', '"'))
        if part.lower() == "case":
            return self.case()
        if part.lower() in ("null", "true", "false"):
            return Node("constant", {"null": None, "true": True, "false": False}[part.lower()])
        if part.lower() in _RESERVED:
            self.at -= 1
            self.stuck()
        return self.call(part) if self.take("(") else self.column(part)

    def column(self, name: str) -> Node:
        self.columns.append(name)
        return Node("column", name)

    def case(self) -> Node:
        subject = None if self.next_is("when") else self.either()
        pairs: list[Node] = []
        while self.take("when"):
            condition = self.either()
            self.need("then")
            pairs += [condition if subject is None else Node("compare", "=", (subject, condition)), self.either()]
        if not pairs:
            self.stuck()
        last = self.either() if self.take("else") else Node("constant", None)
        self.need("end")
        return Node("case", None, (*pairs, last))

    def arguments(self) -> tuple[Node, ...]:
        if self.take(")"):
            return ()
        found = [self.either()]
        while self.take(","):
            found.append(self.either())
        self.need(")")
        return tuple(found)

    def call(self, name: str) -> Node:
        known = name.lower()
        if known in ("cast", "try_cast"):
            value = self.either()
            self.need("as")
            kind = self.take(*TYPES) or self.stuck()
            self.need(")")
            return Node(known, kind, (value,))
        if known not in FUNCTIONS:
            names = (*FUNCTIONS, "cast", "try_cast")
            self.refuse(f"no function {name!r} in {_said(self.text)!r}; {nearest(name, names, what='functions')}")
        arguments = self.arguments()
        fewest, most, *_ = FUNCTIONS[known]
        if not fewest <= len(arguments) <= most:
            takes = fewest if fewest == most else f"{fewest} or more" if most > 9 else f"{fewest} to {most}"
            self.refuse(
                f"{name} takes {takes} value{'' if takes == 1 else 's'} in brackets, not {len(arguments)}, in "
                f"{_said(self.text)!r}"
            )
        return Node("function", known, arguments)


def _number(part: str) -> Any:
    if part.isdigit():
        return int(part) if len(part) <= 38 else None
    value = float(part)
    return value if value != float("inf") else None


def _compares(tree: Node) -> bool:
    return tree.kind in ("compare", "between", "in", "like", "ilike", "is", "and", "or", "not")


def compute(expression: Expression, frame: pl.DataFrame, where: str) -> pl.Series:
    """Compute an expression on a table, shape (N,); missing where it needs what is missing.

    NaN and infinity, in a column or on the way, count as missing at once: no comparison holds for them. Integers keep
    every digit; where they would need more than 64 bits the result is missing.

    Raises
    ------
    InputError
        If a column is absent (the nearest names are given), or holds what can't be computed with.

    Examples
    --------
    >>> table = pl.DataFrame({"a": [1, 2], "b": [3, 0]})
    >>> compute(read_expression("a / b", "ratio"), table, "ratio").to_list()
    [0.3333333333333333, None]
    """
    for name in expression.columns:
        if name not in frame.columns:
            raise InputError(
                f"{where}: no column {name!r} for {expression.said!r}; {nearest(name, frame.columns)} ({_QUOTES})"
            )
    try:
        return evaluate(expression.tree, frame)
    except (WrongKindError, PolarsError, ValueError, TypeError, OverflowError) as problem:
        raise InputError(f"{where}: can't compute {expression.said!r}: {_one_line(problem)}") from problem
    except (MemoryError, RecursionError, PanicException) as problem:
        raise InputError(
            f"{where}: can't compute {expression.said!r}: it needs too much; write it shorter"
        ) from problem


def _one_line(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return lines[0][:200]
