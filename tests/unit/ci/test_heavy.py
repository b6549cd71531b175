"""`.ci/check` leaves out the tests that use a server, kill processes or train."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from crash.postgres import a_store, new_database
from support.heavy import USED, used


def with_a_server() -> None:
    with new_database():
        pass


def with_a_server_inside() -> None:
    def inside() -> None:
        with_a_server()

    inside()


def that_kills() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def that_ends_softly() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def with_any_store() -> None:
    with a_store("sqlite"):
        pass


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (with_a_server, {"crash.postgres.new_database"}),
        (with_a_server_inside, {"crash.postgres.new_database"}),
        (that_kills, {"signal.SIGKILL"}),
        (that_ends_softly, set[str]()),
        (with_any_store, set[str]()),
    ],
)
def test_what_a_function_uses_is_found_in_its_helpers_too(
    function: Callable[[], None], expected: set[str]
) -> None:
    found = used([function]) & USED
    assert found >= expected
    assert bool(found) == bool(expected)


def test_an_ordinary_test_is_not_heavy(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("heavy") is None


@pytest.mark.parametrize("store", ["postgresql"])
def test_a_test_of_the_servers_ledger_is_heavy(request: pytest.FixtureRequest, store: str) -> None:
    del store
    assert request.node.get_closest_marker("heavy") is not None
