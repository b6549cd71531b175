"""Look up everything that a job needs, once, without calling a vendor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from pydantic import BaseModel, JsonValue

from unitune.backends import registry
from unitune.backends.offer import Offer, Terms
from unitune.backends.protocol import Backend
from unitune.cost.billing import Workload
from unitune.cost.budget import BUDGET_CODES
from unitune.cost.prices.book import PriceBook, book_for
from unitune.data.check import read_job
from unitune.data.dataset import Dataset
from unitune.data.example import digest
from unitune.data.overlap import SharedCase
from unitune.data.privacy.redaction import Redaction
from unitune.data.split import Splits
from unitune.errors import (
    DataError,
    JobError,
    Leak,
    Mismatch,
    MissingExtra,
    OverBudget,
    UnituneError,
    Unsupported,
)
from unitune.findings import Finding, shown
from unitune.job.job import Job
from unitune.job.sweep import Value, written
from unitune.models import OTHER_BASE, Start
from unitune.planning.feasibility import offer_findings
from unitune.planning.rows import Rows, WireFile
from unitune.planning.start import find_start
from unitune.tracking.interface import missing_trackers
from unitune.workspace.user_settings import today

SpecT = TypeVar("SpecT", bound=BaseModel)


@dataclass(frozen=True, eq=False)
class ResolvedJob:
    """Job with its offer, prices, rows and start looked up."""

    job: Job  # with the offer's name of its base model
    offer: Offer
    terms: Terms  # the offer's terms for the base model
    book: PriceBook
    rows: Rows  # shared by all backends
    # From the offer, the start and the trackers
    offer_findings: tuple[Finding, ...]
    # Model that the training continues from; None for the base model, or if it was not found
    start: Start | None = None
    # Values of a run of a sweep, by setting
    settings: Mapping[str, Value] = field(default_factory=dict[str, Value])
    # Runs of a sweep over rows (`unitune.curve.planning`)
    parts: tuple[ResolvedJob, ...] = ()

    @cached_property
    def runs(self) -> tuple[ResolvedJob, ...]:
        """Each run of a sweep as a resolved job; the job itself if it is not a sweep."""
        sweep = self.job.sweep
        runs = tuple(
            replace(self, job=job, settings={name: job.tuning.value_of(name) for name in sweep})
            for job in self.job.variants().values()
        )
        return self.parts or runs or (self,)

    @property
    def is_free(self) -> bool:
        """True if nobody charges for the training or for judges that reward it."""
        return self.offer.training_price == "none" and not self.job.judged_rewards

    @property
    def is_sweep(self) -> bool:
        """True if the job has several runs."""
        return bool(self.parts or self.job.sweep)

    @property
    def setting(self) -> str:
        """Values of a run of a sweep, which are its name."""
        return ", ".join(f"{name}={written(value)}" for name, value in self.settings.items())

    @property
    def splits(self) -> Splits:
        """Rows of each split. Raises DataError if they cannot be used."""
        return self.rows.read.splits

    @property
    def leaks(self) -> tuple[SharedCase, ...]:
        """Test cases that also occur in training or validation rows."""
        return self.rows.read.leaks

    @cached_property
    def backend(self) -> Backend:
        """Backend of the job. Raises MissingExtra if its packages are not installed."""
        return registry.backend(self.offer.name)

    @cached_property
    def workload(self) -> Workload:
        """Rows with the base model's token counts."""
        return self.rows.counted_for(self.job.base_model, self.terms.aliases)

    @cached_property
    def files(self) -> dict[str, WireFile]:
        """Files of the upload, by name."""
        written = self.rows.written_in(self.terms.formats.get(self.job.method))
        return {name: file for name, file in written.items() if name in self.uploads}

    @property
    def uploads(self) -> dict[str, Dataset]:
        """Rows of the upload, by file name."""
        held_out = self.terms.limits.validation_rows_most != 0 and len(self.splits.validation)
        more = {"validation.jsonl": self.splits.validation} if held_out else {}
        return {"train.jsonl": self.splits.train, **more}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that determines what a training learns (`training_fingerprint`).

        Name, budget and evaluation are left out, but for the scorer that chooses the checkpoint.
        """
        job, start, chosen = self.job, self.job.start, dict[str, JsonValue]()
        if job.tuning.best_by == "score":
            chosen["best_by"] = job.evaluate.deciding.model_dump(mode="json")
        if job.method == "rft":
            chosen["reward"] = [reward.model_dump(mode="json") for reward in job.rewards]
            if job.evaluate.dialogue is not None:
                chosen["dialogue"] = job.evaluate.dialogue.model_dump(mode="json", exclude={"user"})
        return digest(
            {
                **chosen,
                **self.rows.fingerprints,
                "base_model": job.base_model,
                "backend": job.backend,
                "method": job.method,
                "tuning": job.tuning.model_dump(mode="json"),
                "options": job.options.get(job.backend, {}),
                **({"start": self.start.identity if self.start else start} if start else {}),
            }
        )


def preflight(
    job: Job | ResolvedJob, *, book: PriceBook | None = None, rows: Rows | None = None
) -> ResolvedJob:
    """Look up everything that a job needs. A resolved job is returned unchanged.

    Raises:
        NotFoundError: No installed package provides the job's backend.
        JobError: The job names no base model for its backend, or prices.yaml is not valid.
    """
    if isinstance(job, ResolvedJob):
        return job
    book = book or book_for(job)
    offer = book.offer(job.backend)
    terms = offer.terms(job.base_model, job.method)
    if terms.model is not None and terms.model.name != job.base_model:
        job = job.model_copy(update={"model": terms.model.name})
    rows = rows or Rows(read_job(job))
    if rows.read.redaction is not None and not rows.read.report.errors:
        job = _with_redacted_instructions(job, rows.read.redaction)
    start, refusals = find_start(job, offer, terms)
    if start is not None and start.run is not None:
        job = job.model_copy(update={"start": start.run})
    findings = (
        *offer_findings(job, offer, today()),
        *refusals,
        *missing_trackers(job.track),
    )
    return ResolvedJob(job, offer, terms, book, rows, findings, start)


def _with_redacted_instructions(job: Job, redaction: Redaction) -> Job:
    """Return the job with the placeholders of its redacted rows in its prompts, too."""

    def redacted(spec: SpecT) -> SpecT:
        words = getattr(spec, "instructions", None)
        return spec.model_copy(update={"instructions": redaction.redact(words)}) if words else spec

    contenders = tuple(map(redacted, job.evaluate.contenders))
    evaluate = redacted(job.evaluate).model_copy(update={"contenders": contenders})
    return job.model_copy(update={"evaluate": evaluate})


def refuse(findings: Iterable[Finding]) -> None:
    """Raise the exception that fits the errors among the findings, if any (`_error_type`)."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    kind, message = _error_type(errors), "\n".join(shown(errors))
    raise DataError(message, tuple(errors)) if kind is DataError else kind(message)


def _error_type(errors: list[Finding]) -> type[UnituneError]:
    codes = {error.code for error in errors}
    if codes & {"leak", "overlap"}:
        return Leak
    if OTHER_BASE in codes:
        return Mismatch
    if codes <= BUDGET_CODES:
        return OverBudget
    if "missing-extra" in codes:
        return MissingExtra
    if errors[0].code == "refused-options":
        return JobError
    return DataError if errors[0].file else Unsupported
