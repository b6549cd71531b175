"""An answer of another shape than described is `Unreachable`, and a bug of ours stays one."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import pytest

from unitune.backends import capabilities, registry
from unitune.backends.protocol import Backend
from unitune.errors import BackendError, Unreachable
from unitune_providers.unreadable import READING_VERBS, reads_answers

HOSTED = ("bedrock",)
BUILDS_OR_ASKS_NOBODY = {
    *("submit", "submit_batch"),  # which build a request, too: the net is around the call alone
    *("chat", "validate_options", "guarantee_of"),
    *(
        "forecast",
        "calibrate",
        "loss_mask",
        "pull",
        "stored",
        "report_environment",
    ),  # of a machine of one's own
    "read_prices",  # of a class of its own
}


@reads_answers
class Odd:
    name: ClassVar[str] = "odd"

    def poll(self, answer: Any) -> Any:
        return answer["state"].lower()

    def find(self, error: Exception) -> None:
        raise error

    def validate_options(self, job: Any) -> Any:
        return job["options"]


@pytest.mark.parametrize("answer", [{}, [], None, "x", {"state": 1}])
def test_an_answer_of_another_shape_cannot_be_read(answer: Any) -> None:
    with pytest.raises(Unreachable, match="odd's answer when asked to say how the training stands"):
        Odd().poll(answer)
    assert "running" == Odd().poll({"state": "RUNNING"})


@pytest.mark.parametrize("error", [BackendError("no", status=404), OSError("disk full")])
def test_what_says_more_is_left_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        Odd().find(error)
    assert error is raised.value


def test_what_reads_no_answer_is_not_under_the_net() -> None:
    with pytest.raises(TypeError):
        Odd().validate_options(None)


@pytest.mark.parametrize("name", HOSTED)
def test_the_net_is_under_all_verbs_of_a_vendor_that_read(name: str) -> None:
    try:
        kind: type = type(registry.backend(name))
    except ImportError as missing:
        pytest.skip(str(missing))
    bare = [
        verb
        for verb in READING_VERBS
        if hasattr(kind, verb) and not hasattr(getattr(kind, verb), "__wrapped__")
    ]
    assert [] == bare


def test_every_verb_that_a_backend_may_have_is_known_here() -> None:
    protocols = [Backend, *(one for _, one in inspect.getmembers(capabilities, inspect.isclass))]
    verbs = {
        name
        for protocol in protocols
        if getattr(protocol, "_is_protocol", False)
        for name, _ in inspect.getmembers(protocol, inspect.isfunction)
        if not name.startswith("_")
    }
    assert set() == verbs - READING_VERBS.keys() - BUILDS_OR_ASKS_NOBODY
