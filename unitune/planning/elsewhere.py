"""Which other backends can take a job that one backend refuses: computed from their offers.

The same weights come first: offers name them by aliases, and some backends take any model of the
Hugging Face hub. Then those that would train the same rows on a base of their own. A backend that
would itself refuse the job, or at which unitune cannot launch, is in neither list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Literal

from unitune.backends import registry
from unitune.backends.offer import Offer, OfferedModel
from unitune.findings import Finding
from unitune.job.job import Job

Judge = Callable[[Job, Offer, date], Iterable[Finding]]
FOR_TESTS = "fake"
CLOSED_TO = "closed-to"
"""Code of the finding that a vendor takes no trainings from some."""
NOT_ALL = "not open to all"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Who can take a job.

    Args:
        same: Backends that tune the same weights, with their name of them.
        other: Backends that tune other bases on the same rows.
    """

    same: tuple[tuple[str, str], ...]
    other: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in a sentence or two; nothing where nobody can."""
        words: list[str] = []
        if self.same:
            names = _listed([f"{backend} ({model})" for backend, model in self.same])
            words.append(f"The same model can be tuned at {names}.")
        if self.other:
            verb = "takes" if len(self.other) == 1 else "take"
            words.append(f"With another base {_listed(self.other)} {verb} the job.")
        return " ".join(words)


def elsewhere(job: Job, day: date, judge: Judge) -> Elsewhere:
    """Return the backends that can take a job, besides its own.

    Args:
        job: As its own backend was asked to do it.
        day: Today.
        judge: Says what an offer has against a job.
    """
    model = job.base_model
    known = job.backend in registry.offer_names()
    names = {model} | _names(registry.offer(job.backend).model(model) if known else None)
    same: list[tuple[str, str]] = []
    other: list[str] = []
    for name in registry.backend_names():
        if name in (job.backend, FOR_TESTS):
            continue
        offer = registry.offer(name)
        equals = [(one, _taken(job, offer, one, day, judge)) for one in _equals(offer, names)]
        others = [_taken(job, offer, one.name, day, judge) for one in offer.models]
        if takes := [(one, by) for one, by in equals if by is not None]:
            one, by = takes[0]
            same.append((name, one if by == "all" else f"{one}, {NOT_ALL}"))
        elif any(others):
            other.append(name if "all" in others else f"{name} ({NOT_ALL})")
    return Elsewhere(tuple(same), tuple(other))


def _taken(
    job: Job, offer: Offer, model: str, day: date, judge: Judge
) -> Literal["all", "some"] | None:
    """Return whether a backend takes the job with this base: of all, of some, or of nobody."""
    moved = job.model_copy(update={"backend": offer.name, "model": model})
    findings = list(judge(moved, offer, day))
    if any(finding.severity == "error" for finding in findings):
        return None
    return "some" if any(finding.code == CLOSED_TO for finding in findings) else "all"


def _equals(offer: Offer, names: set[str]) -> Iterator[str]:
    """Yield an offer's names of the same weights."""
    folded = {name.casefold() for name in names}
    for model in offer.models:
        if folded & {name.casefold() for name in _names(model)}:
            yield model.name
    if offer.hub_models:
        yield from sorted(name for name in names if name.count("/") == 1)


def _names(model: OfferedModel | None) -> set[str]:
    return {model.name, *model.aliases} if model else set()


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
