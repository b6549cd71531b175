"""Compile a multi grader's formula, which never runs as code, by OpenAI's guide "Graders"."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

# Maps values by name to the result; raises ArithmeticError or ValueError if there is none
Formula: TypeAlias = Callable[[Mapping[str, float]], float]
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
    "abs": math.fabs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_OPERATORS: Mapping[type[ast.AST], Callable[..., float]] = {
    ast.Add: float.__add__,
    ast.Sub: float.__sub__,
    ast.Mult: float.__mul__,
    ast.Div: float.__truediv__,
    ast.Pow: math.pow,
    ast.USub: float.__neg__,
    ast.UAdd: float.__pos__,
}


def compile_formula(text: str, names: Collection[str]) -> Formula:
    """Compile a formula over named values (``^`` is a power); raises `ValueError`."""
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
        return _compiled(tree, text, names)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"calculate_output {text!r} is not a formula") from error


def _compiled(tree: ast.expr, text: str, names: Collection[str]) -> Formula:
    match tree:
        case ast.Constant(value=int() | float() as number):
            return lambda _: float(number)
        case ast.Name(id=name) if name in names:
            return lambda values: float(values[name])
        case ast.Name(id=name):
            known = ", ".join(sorted(names))
            raise ValueError(f"calculate_output uses {name!r}, but the graders are {known}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            function, arguments = _OPERATORS[type(op)], [left, right]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            function, arguments = _OPERATORS[type(op)], [operand]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if (
            name in _FUNCTIONS and (len(arguments) == 1 or (arguments and name in ("min", "max")))
        ):
            function = _FUNCTIONS[name]
        case _:
            raise ValueError(
                f"calculate_output {text!r} may contain only numbers, graders' names, + - * / ^ "
                f"and {', '.join(sorted(_FUNCTIONS))}"
            )
    inner = [_compiled(argument, text, names) for argument in arguments]
    return lambda values: float(function(*(part(values) for part in inner)))
