"""The error tree: exit codes, standard types, and the drawing in its docstring."""

from __future__ import annotations

import inspect

import pytest

from unitune import errors

# Programs rely on them: rename none.
CODES = """
unitune-error user-error job-error data-error not-found-error missing-extra unsupported
duplicate-run-error backend-error unreachable run-failed integrity-error leak mismatch
unstable-judge gate-not-passed over-budget unreadable-record lock-timeout wait-timeout interrupted
"""


def tree() -> list[type[errors.UnituneError]]:
    return [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.UnituneError)
    ]


@pytest.mark.parametrize("kind", tree())
def test_every_error_is_drawn_in_the_module_docstring(kind: type[errors.UnituneError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", tree())
def test_exit_codes_keep_the_contract(kind: type[errors.UnituneError]) -> None:
    assert kind.exit_code in {2, 4, 5, 6, 130}


def test_codes_are_stable_and_subclasses_elsewhere_inherit_them() -> None:
    assert {kind.code for kind in tree()} == set(CODES.split())

    class OwnFailure(errors.BackendError):
        """A vendor's failure."""

    assert OwnFailure("x").code == "backend-error"


def test_an_unknown_name_suggests_the_nearest() -> None:
    error = errors.NotFoundError("backend", "locla", ["local", "together"])

    assert (
        str(error) == "There is no backend 'locla'. Did you mean 'local'? Known: local, together."
    )


def test_leaves_are_the_standard_types_that_callers_expect() -> None:
    assert issubclass(errors.JobError, ValueError)
    assert issubclass(errors.NotFoundError, LookupError)
    assert issubclass(errors.MissingExtra, ImportError)
    assert issubclass(errors.Unreachable, ConnectionError)
