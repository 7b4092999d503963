"""What to pull: `edge_uncertainty > 0.3 and not (width < 800)`, as a person writes it, turned into an Arrow filter.

Pure. Only comparisons of the lake's own labels with plain values can be said, so nothing can be injected.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from schemas.candidate import LABELS, READ
from schemas.errors import BadQuery
from schemas.industries import Industry

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_SQL = re.compile(
    r"""(?P<text>'[^']*'|"[^"]*")|(?P<word>\b(AND|OR|NOT|IN)\b)|(?P<same>(?<![<>!=])=(?!=))|(?P<other><>)"""
)


@dataclass(frozen=True)
class Query:
    """Which candidates. `where`: a condition on labels; `limit`: at most so many; `hardest_first`: uncertain edges.

    `leave_out`: `exact` leaves out the same image again, `near` also what looks like another of the same grant.
    """

    industry: Industry
    where: str | None = None
    limit: int | None = None
    hardest_first: bool = False
    leave_out: Literal["exact", "near"] | None = None


def columns_of(where: str | None) -> set[str]:
    """The columns that a condition looks at. Raises `BadQuery`."""
    return set() if where is None else {node.id for node in ast.walk(_parsed(where)) if isinstance(node, ast.Name)}


def as_filter(where: str | None) -> pc.Expression | None:
    """The condition as an Arrow filter; None when there is none. Raises `BadQuery` that says what is wrong."""
    try:
        return None if where is None else _read(_parsed(where))
    except (RecursionError, ValueError):  # of thousands of signs or digits
        raise BadQuery("The condition is too long to be read. Write it shorter.") from None


def _parsed(where: str) -> ast.expr:
    try:
        return ast.parse(_SQL.sub(_as_python, where).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last: of thousands of signs
        raise BadQuery("The condition cannot be read. Write it like: edge_uncertainty > 0.3 and width >= 800") from None


def _as_python(found: re.Match[str]) -> str:
    if found["word"]:
        return found["word"].lower()
    if found["same"]:
        return "=="
    return "!=" if found["other"] else found[0]


def _read(node: ast.expr) -> pc.Expression:
    if isinstance(node, ast.BoolOp):
        whole, *rest = map(_read, node.values)
        for each in rest:
            whole = (whole & each) if isinstance(node.op, ast.And) else (whole | each)
        return whole
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_read(node.operand)
    if isinstance(node, ast.Compare):
        return _comparison(node)
    raise BadQuery("A condition compares columns with values: edge_uncertainty > 0.3, joined by and, or, not.")


def _comparison(node: ast.Compare) -> pc.Expression:
    sides = [node.left, *node.comparators]
    first, *others = (_one(*each) for each in zip(sides, node.ops, sides[1:], strict=False))
    for each in others:
        first = first & each
    return first


def _one(left: ast.expr, how: ast.cmpop, right: ast.expr) -> pc.Expression:
    if isinstance(right, ast.Name) and not isinstance(left, ast.Name):
        flipped = {ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.Lt: ast.Gt, ast.LtE: ast.GtE}
        left, how, right = right, flipped.get(type(how), type(how))(), left
    if not isinstance(left, ast.Name):
        raise BadQuery("One side of a comparison must be a column of the lake.")
    if left.id not in LABELS:
        raise BadQuery(f"The lake has no column {left.id!r}. It has: {', '.join(LABELS)}.")
    kind = READ.field(left.id).type
    if isinstance(how, (ast.In, ast.NotIn)):
        if not isinstance(right, (ast.Tuple, ast.List)):
            raise BadQuery("After `in` comes a list: network in ('u2netp', 'u2net').")
        found = pc.field(left.id).isin(pa.array([_value(each, kind) for each in right.elts], kind))
        return found if isinstance(how, ast.In) else ~found
    compare = _COMPARE.get(type(how))
    if compare is None:
        raise BadQuery("Compare with <, <=, >, >=, =, != or in.")
    return compare(pc.field(left.id), pa.scalar(_value(right, kind), kind))


def _value(node: ast.expr, kind: pa.DataType) -> object:
    try:
        value = ast.literal_eval(node)
        if value is None:  # nothing equals it, so no row, or each, would be chosen without a word
            raise ValueError
        if pa.types.is_timestamp(kind):
            moment = datetime.fromisoformat(value)
            value = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        pa.scalar(value, kind)
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        raise BadQuery(f"{ast.unparse(node)} is no value of that column ({kind}).") from None
    return value
