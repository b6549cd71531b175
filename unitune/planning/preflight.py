"""The one way into everything: `preflight` looks up all that a job needs, once.

    Job ──► offer, backend, the model's own name there
        ──► rows read, checked and split; test cases that leak
        ──► ResolvedJob: plan, launch, quote, calibrate, compare and cost take it

It starts nothing and calls no vendor. A finding that is an error stops a plan and, by `refuse`, a
launch, in the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from unitune.backends import registry
from unitune.backends.offer import Offer, Terms
from unitune.backends.protocol import Backend
from unitune.cost.budget import BUDGET_CODES
from unitune.cost.prices.book import PriceBook, book_for
from unitune.cost.tokens import TokenCounter, counter_for
from unitune.cost.tokens.by_characters import CharacterCounter
from unitune.cost.workload import Workload, measure
from unitune.data.check import JobRows, read_job
from unitune.data.example import digest
from unitune.data.overlap import SharedCase
from unitune.data.split import Splits
from unitune.errors import (
    DataError,
    JobError,
    Leak,
    MissingExtra,
    OverBudget,
    UnituneError,
    Unsupported,
)
from unitune.findings import Finding, shown
from unitune.job.job import Job
from unitune.planning.feasibility import WireFile, offer_findings, wire_file
from unitune.workspace.today import today


@dataclass(slots=True)
class Rows:
    """A job's rows, read once, written once in each format, counted once by each tokenizer."""

    read: JobRows
    counters: Mapping[str, TokenCounter] = field(default_factory=dict[str, TokenCounter])
    """Of models whose vendor counted, by model."""
    _counted: dict[object, Workload] = field(default_factory=dict[object, Workload])
    _written: dict[str | None, dict[str, WireFile]] = field(
        default_factory=dict[str | None, dict[str, WireFile]]
    )

    def counted_for(self, model: str, aliases: Iterable[str] = ()) -> Workload:
        """Return the rows as a model counts them."""
        counter = self.counters.get(model) or counter_for(model, aliases=aliases)
        # Characters are counted alike for all models, whichever tokenizer is missing.
        alike = isinstance(counter, CharacterCounter)
        key = counter.basis if alike else (counter.basis, counter.assumptions)
        if key not in self._counted:
            self._counted[key] = measure(self.read.splits, counter)
        return replace(self._counted[key], assumptions=counter.assumptions)

    def written_in(self, format_name: str | None) -> dict[str, WireFile]:
        """Return the files as they would be uploaded, by name."""
        if format_name not in self._written:
            splits = self.read.splits
            parts = {"train.jsonl": splits.train, "validation.jsonl": splits.validation}
            self._written[format_name] = {
                name: wire_file(part, format_name) for name, part in parts.items() if len(part)
            }
        return self._written[format_name]


@dataclass(frozen=True, eq=False)
class ResolvedJob:
    """A job with everything looked up."""

    job: Job
    """With the offer's own name of its base model."""
    offer: Offer
    terms: Terms
    """Of the offer, for the base model."""
    book: PriceBook
    rows: Rows
    """The same for all backends."""
    offer_findings: tuple[Finding, ...]
    """What the offer says against the job."""

    @property
    def splits(self) -> Splits:
        """The rows by what they are for.

        Raises:
            DataError: They cannot be used.
        """
        return self.rows.read.splits

    @property
    def leaks(self) -> tuple[SharedCase, ...]:
        """Test cases that stand in training or validation rows."""
        return self.rows.read.leaks

    @cached_property
    def backend(self) -> Backend:
        """The backend.

        Raises:
            MissingExtra: Its packages are not installed.
        """
        return registry.backend(self.offer.name)

    @cached_property
    def workload(self) -> Workload:
        """The rows as the base model counts them."""
        return self.rows.counted_for(self.job.base_model, self.terms.aliases)

    @cached_property
    def files(self) -> dict[str, WireFile]:
        """The files as they would be uploaded, by name."""
        return self.rows.written_in(self.terms.formats.get(self.job.method))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that determines what a training learns (`training_fingerprint`).

        Name, budget and evaluation are left out, so that changing them finds the same training.
        """
        return digest(
            {
                "train": self.splits.train.fingerprint,
                "validation": self.splits.validation.fingerprint,
                "base_model": self.job.base_model,
                "backend": self.job.backend,
                "method": self.job.method,
                "tuning": self.job.tuning.model_dump(mode="json"),
                "options": self.job.options.get(self.job.backend, {}),
            }
        )


def preflight(
    job: Job | ResolvedJob, *, book: PriceBook | None = None, rows: Rows | None = None
) -> ResolvedJob:
    """Look up all that a job needs; one that is resolved is returned as it is.

    Args:
        job: What to tune and how.
        book: Prices; None: those that hold where the job stands.
        rows: Of the job, where they are read already.

    Raises:
        NotFoundError: No installed package brings the job's backend.
        JobError: The job names no base model for its backend, or prices.yaml is not valid.
    """
    if isinstance(job, ResolvedJob):
        return job
    book = book or book_for(job)
    offer = book.offer(job.backend)
    terms = offer.terms(job.base_model)
    if terms.model is not None and terms.model.name != job.base_model:
        job = job.model_copy(update={"model": terms.model.name})
    findings = offer_findings(job, offer, today())
    return ResolvedJob(job, offer, terms, book, rows or Rows(read_job(job)), findings)


def refuse(findings: Iterable[Finding]) -> None:
    """Refuse what has an error among its findings.

    Raises:
        Leak: Test cases stand in training rows.
        OverBudget: Only the budget speaks against it.
        MissingExtra: Packages are missing.
        JobError: Its options for the backend are wrong.
        DataError: Rows cannot be used.
        Unsupported: The backend cannot do it.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    kind, message = _error_type(errors), "\n".join(shown(errors))
    raise DataError(message, tuple(errors)) if kind is DataError else kind(message)


def _error_type(errors: list[Finding]) -> type[UnituneError]:
    codes = {error.code for error in errors}
    if "leak" in codes:
        return Leak
    if codes <= BUDGET_CODES:
        return OverBudget
    if "missing-extra" in codes:
        return MissingExtra
    if errors[0].code == "refused-options":
        return JobError
    return DataError if errors[0].file else Unsupported
