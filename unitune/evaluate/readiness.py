"""Check a job and its data before anything is paid: `check` and `refusals`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory

from unitune.backends import registry
from unitune.backends.capabilities import ShowsLossMask, Stores
from unitune.backends.offer import Offer
from unitune.backends.options import job_options
from unitune.backends.user_requests import check_user
from unitune.cost.prices.book import PriceBook, book_for
from unitune.data.check import JobRows, check_file, read_job
from unitune.data.dataset import Dataset
from unitune.data.example import Example
from unitune.data.families import families
from unitune.data.labels import labels_of_cases, read_labels
from unitune.data.report import DataReport
from unitune.data.tools import check_tools
from unitune.errors import DataError, MissingExtra, UnituneError
from unitune.evaluate.inference.budget import answer_prices
from unitune.evaluate.inference.sources import (
    check_images,
    check_keys,
    check_recorded,
    read_recorded,
)
from unitune.evaluate.judging.figures import same_family, unknown_contenders
from unitune.evaluate.prompts.contenders import check_contenders, check_shots
from unitune.evaluate.prompts.prompts import check_prompts
from unitune.evaluate.scoring.scorers import (
    build,
    check_expected,
    check_indulgence,
    check_row_scorers,
)
from unitune.evaluate.task import named_clusters, near_copies, once_each, slices_of, without_leaks
from unitune.evaluate.verdict.baseline import check_kept, required_cases, standing
from unitune.findings import Finding, error, note, warning
from unitune.job.contenders import NEWEST, Model, Recorded, Server, Tuned
from unitune.job.job import Job
from unitune.planning.feasibility import offer_findings
from unitune.run.run import find_run
from unitune.scorers.functions import PythonFunction
from unitune.scorers.interface import Scorer, Setting
from unitune.scorers.labels import Labelled, labels_of
from unitune.scorers.row_scorers import RowScorers
from unitune.workspace.user_settings import today

# Rows searched for one with tools, so that large files are not read again
LOOKED_AT = 1000


def check(subject: Job | str | os.PathLike[str]) -> DataReport:
    """Find errors in a job and its data, or in one data file, before anything is paid.

    It finds what `plan`, `launch` and `compare` would refuse, without calling a model or using a
    key.

    Args:
        subject: A job, the path of a job file (.yaml), or the path of a data file.

    Returns:
        Figures of each file, findings, and suspicious training rows. Unreadable data is also a
        finding.

    Raises:
        JobError: The job file is missing or not valid.

    Examples:
        >>> for finding in unitune.check(job).findings:
        ...     print(finding)
    """
    from unitune.data.quality.look import quality_of  # noqa: PLC0415 - slow to import

    if not isinstance(subject, Job):
        if Path(subject).suffix not in (".yaml", ".yml"):
            if Path(subject).is_fifo():
                return _check_pipe(Path(subject))
            return check_file(subject).model_copy(update={"quality": quality_of(str(subject))})
        subject = Job.load(subject)
    rows = read_job(subject)
    ready = () if rows.report.errors else readiness_findings(subject, rows)
    refused = backend_findings(subject)
    unseen = () if rows.report.errors or refused else tools_findings(subject, rows)
    findings = (*rows.report.findings, *refused, *ready, *unseen)
    cut = isinstance(subject.data.test, float) and rows.usable
    quality = quality_of(subject, rows.usable.test if cut and rows.usable else None)
    return rows.report.model_copy(update={"findings": findings, "quality": quality})


def _check_pipe(pipe: Path) -> DataReport:
    """Check a copy of a pipe's content, which can be read only once."""
    with TemporaryDirectory() as folder:
        copy = Path(folder, pipe.name)
        with pipe.open("rb") as source, copy.open("wb") as file:
            shutil.copyfileobj(source, file)
        report = check(copy).model_dump_json()
    of_copy, own = (json.dumps(str(path), ensure_ascii=False)[1:-1] for path in (copy, pipe))
    return DataReport.model_validate_json(report.replace(of_copy, own))


def backend_findings(job: Job) -> tuple[Finding, ...]:
    """Return the errors of a job's backend and, if it trains, of its model there."""
    try:
        offer = registry.offer(job.backend)
        if job.data.train is None:
            return ()
        findings = [*offer_findings(job, offer, today()), *_own_findings(job, offer)]
    except UnituneError as refusal:
        return tuple(_findings_of(refusal))
    return tuple(finding for finding in findings if finding.severity == "error")


def _own_findings(job: Job, offer: Offer) -> Iterator[Finding]:
    """Yield errors that a plan would get from the backend: options and a missing model folder."""
    if offer.options is not None:
        kind = registry.options_of(offer.options)
        for refusal in _raised(job_options, job, offer.name, kind):
            yield error("refused-options", str(refusal))
    name = job.base_model
    if (
        offer.trains_here
        and name.startswith((".", "/", "~"))
        and not Path(name).expanduser().exists()
    ):
        what = f"the model folder {name!r} does not exist."
        yield error(
            "no-model", what, "Name an existing model folder, or a model of the Hugging Face hub."
        )


def tools_findings(job: Job, rows: JobRows) -> Iterator[Finding]:
    """Yield the chat template's errors for the first row with tools in each file."""
    here = registry.offer(job.backend).trains_here
    files = (rows.splits.train, rows.splits.test) if here else ()
    for file in filter(None, files):
        row = next((row for row in islice(file.rows, LOOKED_AT) if row.example.tools), None)
        if row is None or registry.missing_packages(job.backend):
            continue
        backend, base = registry.backend(job.backend), job.base_model
        if not isinstance(backend, Stores) or not isinstance(backend, ShowsLossMask):
            continue
        if Path(base).expanduser().is_dir() or base in {each.name for each in backend.stored()}:
            for refusal in _raised(backend.loss_mask, job, row.example):
                yield file.located(error("template", str(refusal)), row)


def readiness_findings(
    job: Job, rows: JobRows, book: PriceBook | None = None
) -> tuple[Finding, ...]:
    """Return findings about a comparison of a job whose rows can be read."""
    findings = [finding for refusal in refusals(job, rows) for finding in _findings_of(refusal)]
    lacking = (each for refusal in _lacking_yet(job, rows, book) for each in _findings_of(refusal))
    findings += [each.model_copy(update={"severity": "warning"}) for each in lacking]
    test, gate = rows.splits.test, job.evaluate.gate
    if test is None:
        why = "the job has no test cases. It can be trained, but `unitune compare` refuses it."
        findings.append(note("no-test-cases", why, "Set data.test to held-out rows."))
    elif gate and gate.min_cases > len(test):
        why = (
            f"evaluate.gate.min_cases is {gate.min_cases:,}, but {test.name} has {len(test):,} "
            "cases, so the gate can only be inconclusive."
        )
        findings.append(warning("gate-out-of-reach", why))
    specs, user = job.evaluate.contenders, job.evaluate.user
    for judge in job.evaluate.judges:
        if kin := same_family(judge, specs, job.base_model):
            findings.append(warning("judge-family", kin))
    if user and (kin := same_family(user, specs, job.base_model)):
        findings.append(warning("user-family", kin))
    with suppress(DataError):  # an error of `refusals`
        if ignored := unknown_contenders(job):
            findings.append(warning("label-contender", ignored))
    if test is not None and (alike := near_copies(families(once_each(test)[0]))):
        findings.append(note("near-copies", alike))
    return tuple(findings)


def refusals(job: Job, rows: JobRows, run: str | None = None) -> Iterator[UnituneError]:
    """Yield the reasons why a job cannot be compared, judging by the job and its rows.

    Without test cases, only its contenders are checked.
    """
    yield from _raised(check_contenders, job, run)
    splits, evaluate = rows.splits, job.evaluate
    for spec in evaluate.requested:
        if isinstance(spec, Model):
            yield from _raised(registry.offer, spec.backend)
    if job.data.train is not None:
        yield from _raised(check_shots, evaluate, splits.train)
    if splits.test is None:
        return
    test, copies = once_each(splits.test)
    cases = tuple(test)
    scorers, unusable = _scorers(job, splits.train)
    yield from unusable
    yield from _raised(check_row_scorers, evaluate.scorers, test)
    for scorer in scorers:
        yield from _raised(check_expected, [scorer], test)
        yield from _raised(check_expected, [scorer], splits.validation)
        yield from _raised(check_indulgence, [scorer], test)
        if scorer.name == evaluate.primary_scorer and evaluate.gate and evaluate.gate.baseline:
            yield from _raised(check_kept, scorer)
    yield from islice(_unjudgeable(job, cases, copies), 1)
    yield from _raised(named_clusters, cases, evaluate.clusters)
    for key in evaluate.slices:
        yield from _raised(slices_of, cases, (key,))
    yield from _raised(required_cases, evaluate.gate, cases, copies)
    yield from _raised(without_leaks, job, rows.leaks, test, copies)
    yield from _raised(check_recorded, job, cases)
    yield from _raised(check_images, job, test)
    yield from _raised(check_tools, evaluate.dialogue, job.folder, cases)
    yield from _raised(check_user, evaluate.user, (*cases, *splits.validation))
    for spec in evaluate.contenders if job.data.train is not None and run is None else ():
        if isinstance(spec, Tuned) and spec.run is None:
            yield from _raised(check_prompts, spec, (splits.train,), cases)


def _unjudgeable(
    job: Job, cases: Iterable[Example], copies: Iterable[str]
) -> Iterator[UnituneError]:
    """Yield refusals about the rubrics and the labels of judges."""
    for judge, case in product(job.evaluate.judges, cases):
        yield from _raised(judge.clauses, case)
    file = job.evaluate.labels
    if file is not None and job.path(file).exists():
        known = dict.fromkeys([*(case.case_id for case in cases), *copies], "")
        yield from _raised(lambda: labels_of_cases(read_labels(job.path(file)), known, file))


def _lacking_yet(job: Job, rows: JobRows, book: PriceBook | None) -> Iterator[UnituneError]:
    """Yield current refusals of a comparison that can be resolved after the training."""
    for spec in job.evaluate.requested:
        if isinstance(spec, Tuned) and spec.run not in (None, NEWEST):
            yield from _raised(find_run, spec.run)
        if isinstance(spec, Server):
            yield from _raised(check_keys, spec)
        if isinstance(spec, Recorded) and not (path := job.folder / spec.answers).exists():
            yield from _raised(read_recorded, path)
    if job.evaluate.budget is not None:
        yield from _raised(lambda: answer_prices(job, book or book_for(job), allow_unpriced=False))
    if rows.splits.test is None:
        return
    for scorer in _scorers(job, rows.splits.train)[0]:
        if scorer.name == job.evaluate.primary_scorer:
            yield from _raised(standing, job, scorer, tuple(once_each(rows.splits.test)[0]))


def _scorers(job: Job, train: Dataset) -> tuple[list[Scorer], list[UnituneError]]:
    """Build scorers that need neither a key nor user code; return errors of the others."""
    ready: list[Scorer] = []
    unusable: list[UnituneError] = []
    specs = job.evaluate.scorers
    looks_for_labels = any(isinstance(spec, Labelled) and spec.options is None for spec in specs)
    setting = Setting(folder=job.folder, labels=labels_of(train) if looks_for_labels else ())
    for spec in specs:
        functions = (spec,) if isinstance(spec, PythonFunction) else ()
        if isinstance(spec, RowScorers):
            functions, spec = spec.functions, spec.without_code()  # noqa: PLW2901
        for function in functions:
            unusable += _raised(function.check, job.folder)
        if isinstance(spec, Scorer) and not isinstance(spec, PythonFunction):
            try:
                ready.append(build(spec, setting))
            except UnituneError as refusal:
                unusable.append(refusal)
    return ready, unusable


def _raised(refuse: Callable[..., object], *arguments: object) -> Iterator[UnituneError]:
    try:
        refuse(*arguments)
    except UnituneError as refusal:
        yield refusal


def _findings_of(refusal: UnituneError) -> list[Finding]:
    if isinstance(refusal, MissingExtra):
        return [note("missing-extra", str(refusal))]
    if isinstance(refusal, DataError) and refusal.findings:
        return list(refusal.findings)
    return [error("evaluation", str(refusal))]
