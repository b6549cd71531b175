"""What a comparison would refuse, found before a training is paid for.

`readiness_findings` asks what `unitune.evaluate.compare` asks, by the same functions and in the
same words, as far as neither a model, a key nor the user's own code is needed: contenders, scorers,
test cases, slices, clusters, required cases. What only matters once there are answers, such as a
baseline file that is still to be written or a key that may not be sent yet, is a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from unitune.backends import registry
from unitune.backends.credentials import check_allowed
from unitune.data.check import DataReport, check_file, read_job
from unitune.data.dataset import Dataset
from unitune.data.split import Splits
from unitune.errors import DataError, MissingExtra, UnituneError
from unitune.evaluate.baseline import standing
from unitune.evaluate.evidence import required_cases
from unitune.evaluate.grouping import clusters_of, slices_of
from unitune.evaluate.inference.sources import keys_sent
from unitune.evaluate.prompts.build import check_roles
from unitune.evaluate.scoring import build, check_expected, check_indulgence
from unitune.evaluate.task import once_each
from unitune.findings import Finding, error, note
from unitune.job.contenders import Model
from unitune.job.job import Job
from unitune.planning.feasibility import offer_findings
from unitune.planning.preflight import resolve_model
from unitune.scorers.embedding import Embedding
from unitune.scorers.functions import PythonFunction
from unitune.scorers.graders import OpenAIGrader
from unitune.scorers.interface import Scorer, Setting
from unitune.scorers.labels import Labelled
from unitune.workspace.today import today


def check(subject: Job | str | os.PathLike[str]) -> DataReport:
    """Find what is wrong with a job and its data, or with one data file, before anything is paid.

    What `plan`, `launch` and `compare` would refuse. No model is called and no key is needed.

    Args:
        subject: A job, the path of a job file (.yaml), or the path of a data file.

    Returns:
        Figures of each file, and findings; what cannot be read is a finding, too.

    Raises:
        JobError: The job file is missing or not valid.

    Examples:
        >>> for finding in unitune.check(job).findings:
        ...     print(finding)
    """
    if not isinstance(subject, Job):
        if Path(subject).suffix not in (".yaml", ".yml"):
            return check_file(subject)
        subject = Job.load(subject)
    rows = read_job(subject)
    ready = () if rows.report.errors else readiness_findings(subject, rows.splits)
    findings = (*rows.report.findings, *backend_findings(subject), *ready)
    return rows.report.model_copy(update={"findings": findings})


def backend_findings(job: Job) -> tuple[Finding, ...]:
    """Return what stands against a job's backend and model there; errors alone.

    Args:
        job: One without training rows is only compared, and needs a known backend alone.
    """
    found: list[Finding] = []

    def look() -> None:
        offer = registry.offer(job.backend)
        if job.data.train is not None:
            found.extend(offer_findings(resolve_model(job, offer), offer, today()))

    return (*_refusals(look), *(finding for finding in found if finding.severity == "error"))


def readiness_findings(job: Job, splits: Splits) -> tuple[Finding, ...]:
    """Return what a comparison would refuse of a job whose rows can be read.

    Args:
        job: Without test cases, only its contenders are looked at.
        splits: Its rows.
    """
    cases = () if splits.test is None else _cases(job, splits.train, splits.test)
    return (*_contenders(job), *cases)


def _contenders(job: Job) -> Iterator[Finding]:
    yield from _refusals(lambda: check_roles(job.evaluate.contenders))
    for spec in job.evaluate.contenders:
        if isinstance(spec, Model):
            yield from _refusals(lambda name=spec.backend: registry.offer(name))
    for sent in keys_sent(job.evaluate):
        for finding in _refusals(lambda one=sent: check_allowed(*one)):
            yield finding.model_copy(update={"severity": "warning"})


def _cases(job: Job, train: Dataset, rows: Dataset) -> Iterator[Finding]:
    evaluate = job.evaluate
    test, copies = once_each(rows)
    scorers: list[Scorer] = []
    yield from _scorers(job, train, scorers)
    for scorer in scorers:
        yield from _refusals(lambda one=scorer: check_expected([one], test))
        yield from _refusals(lambda one=scorer: check_indulgence([one], test))
    cases = tuple(test)
    yield from _refusals(lambda: clusters_of(cases, evaluate))
    for key in evaluate.slices:
        alone = evaluate.model_copy(update={"slices": (key,)})
        yield from _refusals(lambda one=alone: slices_of(cases, one))
    yield from _refusals(lambda: required_cases(evaluate.gate, cases, copies))
    primary = [scorer for scorer in scorers if scorer.name == evaluate.primary_scorer]
    for scorer in primary:
        for finding in _refusals(lambda one=scorer: standing(job, one, cases)):
            yield finding.model_copy(update={"severity": "warning"})


def _scorers(job: Job, train: Dataset, made: list[Scorer]) -> Iterator[Finding]:
    """Build the scorers that need neither a key nor the user's code, and say why one cannot be."""
    looks_for_labels = any(
        isinstance(spec, Labelled) and spec.options is None for spec in job.evaluate.scorers
    )
    setting = Setting(folder=job.folder, labels=_labels(train) if looks_for_labels else ())
    for spec in job.evaluate.scorers:
        if isinstance(spec, PythonFunction):
            yield from _refusals(lambda one=spec: one.check(job.folder))
        elif isinstance(spec, Scorer) and not (
            isinstance(spec, Embedding) or (isinstance(spec, OpenAIGrader) and spec.run_code)
        ):
            yield from _refusals(lambda one=spec: made.append(build(one, setting)))


def _labels(train: Dataset) -> tuple[str, ...]:
    answers = (example.answer for example in train)
    return tuple(dict.fromkeys(answer.strip() for answer in answers if answer))


def _refusals(look: Callable[[], object]) -> Iterator[Finding]:
    """Yield why something is refused; nothing where it is not."""
    try:
        look()
    except MissingExtra as missing:
        yield note("missing-extra", str(missing))
    except DataError as refusal:
        yield from refusal.findings or [error("evaluation", str(refusal))]
    except UnituneError as refusal:
        yield error("evaluation", str(refusal))
