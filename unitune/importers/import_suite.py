"""Files of another tool as a job that can be compared: `import_suite`.

Writes ``unitune.yaml``, ``test.jsonl`` with the cases, and ``answers-NAME.jsonl`` for each model
that has answered: recorded contenders, the first the baseline and the last the candidate. A suite
that nobody has answered yet gets the two contenders that it is for, the untuned model and the
tuned one, and waits for rows to train on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from unitune.errors import DataError, UserError
from unitune.evaluate.inference.recorded import answer_line
from unitune.findings import clip
from unitune.importers.inspect_log import read_log
from unitune.importers.lm_eval import read_samples
from unitune.importers.promptfoo.config import read_config
from unitune.importers.promptfoo.results import is_results, read_results
from unitune.importers.suite import (
    Answers,
    Base,
    Reader,
    Suite,
    each_asked_once,
    joined,
    kept_scores,
)
from unitune.importers.vendor_jobs import job_name, moved
from unitune.job.contenders import ContenderSpec, Recorded, Role, Tuned, ZeroShot
from unitune.job.job import Data, Evaluate, Job

DEFAULT_BASE = Base("local", "smollm2-135m-instruct")
"""Stands in the job where the other tool named no model that unitune knows."""
ROOM = 1024
"""Longest answer in tokens where neither the other tool nor an expected answer says one."""


def _read_promptfoo(path: Path) -> Suite:
    return read_results(path) if is_results(path) else read_config(path)


READERS: Mapping[str, Reader] = {
    "inspect": read_log,
    "lm-eval": read_samples,
    "promptfoo": _read_promptfoo,
}
"""By the word before the colon in ``unitune import promptfoo:FILE``."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What came of it.

    Args:
        job: As it was written.
        files: What was written.
        suite: Cases, answers, and what did not come along.
    """

    job: Job
    files: tuple[Path, ...]
    suite: Suite


class ImportUnsupported(DataError):
    """Something in the files has no counterpart, and the user did not say to leave it out."""


def import_suite(sources: Sequence[str], folder: Path, *, drop: bool = False) -> ImportResult:
    """Write suites and results of another tool as a job with its cases.

    Args:
        sources: ``FORMAT:FILE``, all of one format; results of the same cases, the baseline's
            first and the candidate's last.
        folder: Where the files go; a file there with other content is not overwritten.
        drop: Leave out what cannot come along.

    Raises:
        ImportUnsupported: Something cannot come along, and `drop` was not said; nothing is written.
        DataError: A file cannot be read, or nothing is left to compare.
        UserError: The sources are not of that form, or a file stands in the way.
        MissingExtra: A package is needed to read a file.
    """
    reader = _reader(sources)
    suite = each_asked_once(joined([reader(Path(one.partition(":")[2])) for one in sources]))
    if suite.findings and not drop:
        raise ImportUnsupported(_refusal(suite), suite.findings)
    if not suite.cases:
        raise DataError(f"{suite.file}: no case is left to compare; nothing was written.")
    with TemporaryDirectory() as place:
        draft = Path(place)
        try:
            _job(suite, draft).save(draft / "unitune.yaml")
        except ValidationError as failure:
            first = failure.errors()[0]
            raise DataError(
                f"{suite.file} makes no job: {'.'.join(str(part) for part in first['loc'])}: "
                f"{first['msg']}; it is {clip(first['input'])}. Nothing was written."
            ) from failure
        lines = "".join(f"{case.line}\n" for case in suite.cases)
        (draft / "test.jsonl").write_text(lines, encoding="utf-8")
        for answers, file in zip(suite.answers, _files(suite.answers), strict=True):
            (draft / file).write_text(_lines(answers, suite), encoding="utf-8")
        files = moved(sorted(draft.iterdir()), folder)
    return ImportResult(Job.load(folder / "unitune.yaml"), files, suite)


def is_suite(source: str) -> bool:
    """Whether a source names a file of another tool, and not a vendor's job."""
    return source.partition(":")[0] in READERS


def _reader(sources: Sequence[str]) -> Reader:
    formats = dict.fromkeys(source.partition(":")[0] for source in sources)
    if len(formats) > 1 or not all(map(is_suite, sources)):
        raise UserError(
            f"the sources are {', '.join(sources)}; several must be files of one tool, each "
            f"written FORMAT:FILE with one of {', '.join(READERS)}."
        )
    if missing := [source for source in sources if not source.partition(":")[2]]:
        raise UserError(f"{missing[0]!r} names no file. Write FORMAT:FILE, e.g. promptfoo:FILE.")
    return READERS[next(iter(formats))]


def _refusal(suite: Suite) -> str:
    count = len(suite.findings)
    what = "1 thing has" if count == 1 else f"{count} things have"
    return (
        f"{suite.file}: {what} no counterpart; nothing was written. The first: "
        f"{suite.findings[0]} With --drop they are left out."
    )


def _job(suite: Suite, folder: Path) -> Job:
    base = suite.base or DEFAULT_BASE
    scorers = (*kept_scores(suite.answers), *suite.scorers)
    if not scorers:
        raise DataError(
            f"{suite.file} has no score that is a share from 0 to 1 for every answer, and nothing "
            "that unitune could score by."
        )
    evaluate = Evaluate(scorers=scorers, contenders=_contenders(suite.answers))
    limit = suite.max_tokens or ("auto" if evaluate.needs_expected else ROOM)
    if not suite.answers:
        evaluate = evaluate.model_copy(update={"max_tokens": limit})
    return Job(
        name=job_name(suite.name),
        model=base.model,
        backend=base.backend,
        data=Data(test="test.jsonl"),
        evaluate=evaluate,
        folder=folder,
    )


def _contenders(answers: Sequence[Answers]) -> tuple[ContenderSpec, ...]:
    if not answers:
        return (ZeroShot(), Tuned())
    last = len(answers) - 1
    return tuple(
        Recorded(name=one.model, role=_role(at, last), answers=file)
        for at, (one, file) in enumerate(zip(answers, _files(answers), strict=True))
    )


def _role(at: int, last: int) -> Role:
    if at == 0:
        return "baseline"
    return "candidate" if at == last else "reference"


def _files(answers: Sequence[Answers]) -> list[str]:
    """Return a file name for each model; names that come out the same are numbered."""
    short = [re.sub(r"[^a-z0-9.]+", "-", one.model.lower()).strip("-.")[:60] for one in answers]
    names = [f"{name}-{at + 1}" if short.count(name) > 1 else name for at, name in enumerate(short)]
    if len(set(names)) < len(names):  # one is called as another is numbered
        names = [f"{at + 1}-{name}" for at, name in enumerate(short)]
    return [f"answers-{name}.jsonl" for name in names]


def _lines(answers: Answers, suite: Suite) -> str:
    return "".join(
        answer_line(case.case_id, answers.texts[case.case_id], answers.scores.get(case.case_id))
        for case in suite.cases
        if case.case_id in answers.texts
    )
