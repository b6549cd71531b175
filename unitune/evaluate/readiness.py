"""What a comparison would refuse, as findings, before a training is paid for.

`readiness_findings` makes the checks of `unitune.evaluate.compare`, by the same functions and in
the same words, as far as neither a model, a key nor the user's own code is needed. What only
matters once there are answers, such as a baseline file that is still to be written or a key that
may not be sent yet, is a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from unitune.backends import registry
from unitune.data.check import check_file, read_job
from unitune.data.dataset import Dataset
from unitune.data.report import DataReport
from unitune.data.split import Splits
from unitune.errors import DataError, MissingExtra, UnituneError
from unitune.evaluate.baseline import required_cases, standing
from unitune.evaluate.inference.sources import check_keys
from unitune.evaluate.prompts.contenders import check_roles
from unitune.evaluate.scoring import (
    build,
    check_expected,
    check_indulgence,
    check_row_scorers,
    labels_of,
)
from unitune.evaluate.task import clusters_of, once_each, slices_of
from unitune.findings import Finding, error, note
from unitune.job.contenders import Model, Server
from unitune.job.job import Job
from unitune.planning.feasibility import offer_findings
from unitune.scorers.functions import PythonFunction
from unitune.scorers.interface import Scorer, Setting
from unitune.scorers.labels import Labelled
from unitune.scorers.row_scorers import RowScorers
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
    """Return the errors of a job's backend and of its model there.

    Args:
        job: One without training rows is only compared, and needs a known backend alone.
    """
    try:
        offer = registry.offer(job.backend)
        if job.data.train is None:
            return ()
        findings = offer_findings(job, offer, today())
    except UnituneError as refusal:
        return tuple(_findings_of(refusal))
    return tuple(finding for finding in findings if finding.severity == "error")


def readiness_findings(job: Job, splits: Splits) -> tuple[Finding, ...]:
    """Return what a comparison would refuse of a job whose rows can be read.

    Args:
        job: Without test cases, only its contenders are looked at.
        splits: Its rows.
    """
    findings = _refusals(check_roles, job.evaluate.contenders)
    for spec in job.evaluate.contenders:
        if isinstance(spec, Model):
            findings += _refusals(registry.offer, spec.backend)
        if isinstance(spec, Server):
            findings += _warnings(_refusals(check_keys, spec))
    if splits.test is not None:
        findings += _case_findings(job, splits.train, splits.test)
    return tuple(findings)


def _case_findings(job: Job, train: Dataset, rows: Dataset) -> list[Finding]:
    evaluate, (test, copies) = job.evaluate, once_each(rows)
    scorers: list[Scorer] = []
    findings = _scorer_findings(job, train, scorers)
    findings += _refusals(check_row_scorers, evaluate.scorers, test)
    for scorer in scorers:
        findings += _refusals(check_expected, [scorer], test)
        findings += _refusals(check_indulgence, [scorer], test)
    cases = tuple(test)
    findings += _refusals(clusters_of, cases, evaluate)
    for key in evaluate.slices:
        findings += _refusals(slices_of, cases, evaluate.model_copy(update={"slices": (key,)}))
    findings += _refusals(required_cases, evaluate.gate, cases, copies)
    for scorer in scorers:
        if scorer.name == evaluate.primary_scorer:
            findings += _warnings(_refusals(standing, job, scorer, cases))
    return findings


def _scorer_findings(job: Job, train: Dataset, ready: list[Scorer]) -> list[Finding]:
    """Build the scorers that need neither a key nor the user's code; return why some cannot be."""
    findings: list[Finding] = []
    specs = job.evaluate.scorers
    looks_for_labels = any(isinstance(spec, Labelled) and spec.options is None for spec in specs)
    setting = Setting(folder=job.folder, labels=labels_of(train) if looks_for_labels else ())
    for spec in specs:
        functions = (spec,) if isinstance(spec, PythonFunction) else ()
        if isinstance(spec, RowScorers):
            functions, spec = spec.functions, spec.without_code()  # noqa: PLW2901
        for function in functions:
            findings += _refusals(function.check, job.folder)
        if isinstance(spec, Scorer) and not isinstance(spec, PythonFunction):
            try:
                ready.append(build(spec, setting))
            except UnituneError as refusal:
                findings += _findings_of(refusal)
    return findings


def _refusals(check: Callable[..., object], *arguments: object) -> list[Finding]:
    """Return why something is refused; nothing where it is not."""
    try:
        check(*arguments)
    except UnituneError as refusal:
        return _findings_of(refusal)
    return []


def _findings_of(refusal: UnituneError) -> list[Finding]:
    if isinstance(refusal, MissingExtra):
        return [note("missing-extra", str(refusal))]
    if isinstance(refusal, DataError) and refusal.findings:
        return list(refusal.findings)
    return [error("evaluation", str(refusal))]


def _warnings(findings: Iterable[Finding]) -> list[Finding]:
    return [finding.model_copy(update={"severity": "warning"}) for finding in findings]
