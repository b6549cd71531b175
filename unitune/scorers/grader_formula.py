"""The formula of OpenAI's multi graders: arithmetic over the graders' names, parsed, never run.

Source: OpenAI's guide "Graders", section Combined graders,
developers.openai.com/api/docs/guides/graders, read 2026-11-25.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping


def _least(*values: float) -> float:
    return min(values)


def _greatest(*values: float) -> float:
    return max(values)


FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "min": _least,
    "max": _greatest,
    "abs": math.fabs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
OF_SEVERAL = ("min", "max")
"""Functions of one argument or more; the others take one."""
OPERATORS: Mapping[type[ast.AST], Callable[..., float]] = {
    ast.Add: float.__add__,
    ast.Sub: float.__sub__,
    ast.Mult: float.__mul__,
    ast.Div: float.__truediv__,
    ast.Pow: math.pow,
    ast.USub: float.__neg__,
    ast.UAdd: float.__pos__,
}


def check_formula(formula: str, names: Mapping[str, object]) -> None:
    """Raise ValueError when a text is no formula over these names."""
    _checked(parse_formula(formula), formula, names)


def parse_formula(formula: str) -> ast.expr:
    """Return a formula as a tree; ``^`` is a power, as OpenAI writes it.

    Raises:
        ValueError: It cannot be parsed.
    """
    try:
        return ast.parse(formula.replace("^", "**").strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"calculate_output {formula!r} is not a formula") from error


def calculate(tree: ast.expr, values: Mapping[str, float]) -> float:
    """Return the value of a checked formula.

    Raises:
        ArithmeticError: It divides by zero, or its value is too large.
        ValueError: A function is not defined there, such as the logarithm of 0.
    """
    match tree:
        case ast.Name(id=name):
            return float(values[name])
        case ast.BinOp(left=left, op=op, right=right):
            return OPERATORS[type(op)](calculate(left, values), calculate(right, values))
        case ast.UnaryOp(op=op, operand=operand):
            return OPERATORS[type(op)](calculate(operand, values))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return float(FUNCTIONS[name](*(calculate(each, values) for each in arguments)))
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case _:
            raise AssertionError("the formula was checked when the job was read")


def _takes(function: str, arguments: int) -> bool:
    return function in FUNCTIONS and (arguments == 1 or (function in OF_SEVERAL and arguments > 1))


def _checked(tree: ast.expr, formula: str, names: Mapping[str, object]) -> None:
    match tree:
        case ast.Name(id=name) if name in names:
            return
        case ast.Name(id=name):
            known = ", ".join(sorted(names))
            raise ValueError(f"calculate_output uses {name!r}, and the graders are {known}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            parts = [left, right]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            parts = [operand]
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if _takes(name, len(parts)):
            pass
        case ast.Constant(value=int() | float()):
            return
        case _:
            raise ValueError(
                f"calculate_output {formula!r}: only numbers, the graders' names, + - * / ^ and "
                f"{', '.join(sorted(FUNCTIONS))} may stand in it"
            )
    for part in parts:
        _checked(part, formula, names)
