"""Write files of another tool as a job with recorded contenders.

The first model is the baseline, the last the candidate. A suite without answers needs training
rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from unitune.errors import DataError, UserError
from unitune.evaluate.inference.sources import answer_line
from unitune.files.validation import first_problem
from unitune.importers.inspect_log import read_log
from unitune.importers.lm_eval import read_samples
from unitune.importers.promptfoo.results import read_results
from unitune.importers.suite import (
    Answers,
    Base,
    Reader,
    Suite,
    joined,
    kept_scores,
    without_repeats,
)
from unitune.importers.vendor_jobs import job_name, moved
from unitune.job.contenders import Recorded, Role, Tuned, ZeroShot
from unitune.job.job import Data, Evaluate, Job
from unitune.text import clip

# Model of the job if the other tool named none that unitune supports
DEFAULT_BASE = Base("local", "smollm2-135m-instruct")
# Longest answer in tokens if there are no expected answers
DEFAULT_MAX_TOKENS = 1024
# Readers by the word before the colon in ``unitune import promptfoo:FILE``
READERS: Mapping[str, Reader] = {
    "inspect": read_log,
    "lm-eval": read_samples,
    "promptfoo": read_results,
}


@dataclass(frozen=True, slots=True)
class ImportResult:
    """An imported suite and the files written."""

    job: Job
    files: tuple[Path, ...]
    suite: Suite


class ImportUnsupported(DataError):
    """The files hold items without a counterpart, and `drop` is not set."""


def import_suite(sources: Sequence[str], folder: Path, *, drop: bool = False) -> ImportResult:
    """Write suites and results of another tool as a job with its cases.

    Args:
        sources: ``FORMAT:FILE``, all of one format and with the same cases; the baseline's results
            first, the candidate's last.
        folder: Folder for the files; files there with other content are not overwritten.
        drop: Leave out items without a counterpart.

    Raises:
        ImportUnsupported: An item has no counterpart, and `drop` is false; nothing is written.
        DataError: A file cannot be read, or nothing is left to compare.
        UserError: A source has another form, or another file is in the way.
        MissingExtra: A package is needed to read a file.
    """
    reader = _reader(sources)
    suite = without_repeats(joined([reader(Path(source.partition(":")[2])) for source in sources]))
    if suite.findings and not drop:
        count = len(suite.findings)
        raise ImportUnsupported(
            f"{suite.file}: {'1 item has' if count == 1 else f'{count} items have'} no "
            f"counterpart. Nothing was written. The first: {suite.findings[0]} Pass --drop to "
            "leave them out.",
            suite.findings,
        )
    if not suite.cases:
        raise DataError(f"{suite.file}: no case is left to compare. Nothing was written.")
    with TemporaryDirectory() as draft:
        _write(suite, Path(draft))
        files = moved(Path(draft), folder)
    return ImportResult(Job.load(folder / "unitune.yaml"), files, suite)


def is_suite(source: str) -> bool:
    """Return whether a source names a file of another tool instead of a vendor's job."""
    return source.partition(":")[0] in READERS


def _reader(sources: Sequence[str]) -> Reader:
    formats = dict.fromkeys(source.partition(":")[0] for source in sources)
    if len(formats) > 1 or not all(map(is_suite, sources)):
        raise UserError(
            f"the sources are {', '.join(sources)}, but all must be files of one tool, each "
            f"written FORMAT:FILE with one of {', '.join(READERS)}."
        )
    if missing := [source for source in sources if not source.partition(":")[2]]:
        raise UserError(
            f"{missing[0]!r} does not name a file. Write FORMAT:FILE, e.g. promptfoo:FILE."
        )
    return READERS[next(iter(formats))]


def _write(suite: Suite, draft: Path) -> None:
    answer_files = _answer_files(suite.answers)
    try:
        _job(suite, answer_files, draft).save(draft / "unitune.yaml")
    except ValidationError as failure:
        raise DataError(
            f"{suite.file} does not give a valid job: {first_problem(failure)}; it is "
            f"{clip(failure.errors()[0]['input'])}. Nothing was written."
        ) from failure
    texts = {"test.jsonl": "".join(f"{case.line}\n" for case in suite.cases)}
    for answers, file in zip(suite.answers, answer_files, strict=True):
        texts[file] = "".join(
            answer_line(case.case_id, answers.texts[case.case_id], answers.scores.get(case.case_id))
            for case in suite.cases
            if case.case_id in answers.texts
        )
    for name, text in texts.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).write_text(text, encoding="utf-8")


def _job(suite: Suite, answer_files: Sequence[str], folder: Path) -> Job:
    base = suite.base or DEFAULT_BASE
    scorers = (*kept_scores(suite.answers), *suite.scorers)
    if not scorers:
        raise DataError(
            f"{suite.file} has no score from 0 to 1 for every answer, and no scorer that unitune "
            "supports."
        )
    recorded = _recorded(suite.answers, answer_files)
    evaluate = Evaluate(
        scorers=scorers, contenders=recorded or (ZeroShot(), Tuned(), *suite.contenders)
    )
    if not recorded:
        longest = {} if evaluate.needs_expected else {"max_tokens": DEFAULT_MAX_TOKENS}
        evaluate = evaluate.model_copy(update={**longest, **suite.settings})
    return Job(
        name=job_name(suite.name),
        model=base.model,
        backend=base.backend,
        data=Data(test="test.jsonl"),
        evaluate=evaluate,
        folder=folder,
    )


def _recorded(answers: Sequence[Answers], files: Sequence[str]) -> tuple[Recorded, ...]:
    def role(at: int) -> Role:
        if at == 0:
            return "baseline"
        return "candidate" if at == len(answers) - 1 else "reference"

    return tuple(
        Recorded(name=model.model, role=role(at), answers=file)
        for at, (model, file) in enumerate(zip(answers, files, strict=True))
    )


def _answer_files(answers: Sequence[Answers]) -> list[str]:
    short = [
        re.sub(r"[^a-z0-9.]+", "-", answer.model.lower()).strip("-.")[:60] for answer in answers
    ]
    if len(set(short)) < len(short):
        short = [f"{number}-{name}" for number, name in enumerate(short, start=1)]
    return [f"answers-{name}.jsonl" for name in short]
