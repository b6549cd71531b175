"""Answers that are not what the vendor's description says: one net under the verbs that read them.

SDKs hand answers on unchecked: a field may be gone, null, or of any other type. Readers bear what
may be gone (see `unitune.testing.omissions`); whatever else a proxy or a broken service puts into
an answer surfaces below as one of `SHAPE_ERRORS`, and is `Unreachable` here: an answer that cannot
be read says nothing, so the outcome of a request that changes something is open.

What only builds a request (`vet`, the request of a launch) stays outside: an error there is a bug.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from unitune.errors import UnituneError, Unreachable

SHAPE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a value raises that has another shape or size; bad bytes are a ValueError, and SDKs
assert some of what they hope for."""
READING_VERBS = {
    "upload": "take the file",
    "find": "list the trainings",
    "describe_job": "describe the training",
    "poll": "say how the training stands",
    "list_jobs": "list the trainings",
    "cancel": "cancel the training",
    "pause": "pause the training",
    "resume": "resume the training",
    "checkpoints": "list the checkpoints",
    "download": "hand the weights out",
    "import_job": "describe the training",
    "delete_file": "delete the file",
    "delete_model": "delete the model",
    "deploy": "deploy the model",
    "find_deployment": "list the deployments",
    "deployment_status": "say how the deployment stands",
    "undeploy": "take the deployment down",
    "quote": "quote the training",
    "count_tokens": "count the tokens",
    "find_batch": "list the batches",
    "poll_batch": "say how the batch stands",
    "fetch_batch": "hand the answers of the batch out",
    "cancel_batch": "cancel the batch",
}
"""Verbs of a backend that read what the vendor answers, and what they ask it to do."""


class Named(Protocol):
    """A backend."""

    name: str


Verb = ParamSpec("Verb")
Result = TypeVar("Result")
Kind = TypeVar("Kind", bound=type)
Asker = TypeVar("Asker", bound=Named)


@contextmanager
def readable(vendor: str, doing: str) -> Generator[None]:
    """Map what reading an answer of another shape raises.

    Args:
        vendor: Who answered.
        doing: What it was asked to do.

    Raises:
        Unreachable: The answer cannot be read.
    """
    try:
        yield
    except UnituneError:
        raise
    except SHAPE_ERRORS as error:
        raise Unreachable(
            f"{vendor}'s answer when asked to {doing} cannot be read "
            f"({type(error).__name__}: {str(error)[:200]})."
        ) from error


def reads_answers(kind: Kind) -> Kind:
    """Put the net under all verbs of a backend's class that read answers."""
    for verb, doing in READING_VERBS.items():
        read = getattr(kind, verb, None)
        if read is not None:
            setattr(kind, verb, _netted(read, doing))
    return kind


def _netted(
    read: Callable[Concatenate[Asker, Verb], Result], doing: str
) -> Callable[Concatenate[Asker, Verb], Result]:
    @wraps(read)
    def netted(self: Asker, *given: Verb.args, **named: Verb.kwargs) -> Result:
        with readable(self.name, doing):
            return read(self, *given, **named)

    return netted
