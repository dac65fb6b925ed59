"""evaluate(): arithmetic in space files: ``channels * 2 ** stage``, ``2 if i > 0 else 1``. No torch."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from nas.registry import unknown

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {"int": int, "max": max, "min": min, "round": round}


def evaluate(text: object, names: Mapping[str, Any]) -> Any:
    """The value of an expression of numbers, the given names, ``+ - * / // % **``, comparisons, ``a if b else
    c``, int, max, min and round. What is no text is its own value.

    Raises ValueError that names the part which is not understood.
    """
    if not isinstance(text, str):
        return text
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, names)
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no expression: {error.msg}") from error
    except (ArithmeticError, TypeError, LookupError) as error:
        raise ValueError(f"{text!r}: {error}") from error


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name):
            if name not in names:
                raise ValueError(unknown("name", name, names))
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARED:
            return COMPARED[type(op)](_value(left, names), _value(right, names))
        case ast.IfExp(test=test, body=body, orelse=other):
            return _value(body if _value(test, names) else other, names)
        case ast.Subscript(value=sequence, slice=index):
            return _value(sequence, names)[_value(index, names)]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*(_value(each, names) for each in arguments))
    raise ValueError(f"{ast.unparse(node)!r} is not understood here: numbers, names and arithmetic are")


def whole(text: object, names: Mapping[str, Any], what: str, *, least: int = 1) -> int:
    """The value of an expression that must be a whole number of at least `least`.

    Raises ValueError that names `what` it is for.
    """
    found = evaluate(text, names)
    if isinstance(found, bool) or not isinstance(found, int | float) or found != found // 1 or found < least:
        raise ValueError(f"{what} must be a whole number of at least {least}, and {text!r} is {found!r}")
    return int(found)
