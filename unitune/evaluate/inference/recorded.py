"""Use recorded answers as a model, so that a retired model can still be compared.

The file has one JSON object per line with `case`, `answer` and perhaps another tool's `scores`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue, TypeAdapter, ValidationError

from unitune.data.example import Example, Message, digest, digest_all
from unitune.data.privacy.redaction import Redaction
from unitune.errors import DataError
from unitune.files.filesystem import content_of, no_link
from unitune.job.contenders import Recorded
from unitune.job.job import Job
from unitune.models import BatchedChatModel, Placed, Reply, Request
from unitune.scorers.functions import RecordedScore


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One line of the file, with scores of another tool by its names."""

    case: str
    answer: str
    scores: dict[str, float] | None = None

    @property
    def content(self) -> dict[str, JsonValue]:
        """Line as JSON values."""
        scored: dict[str, JsonValue] = {"scores": {**self.scores}} if self.scores else {}
        return {"case": self.case, "answer": self.answer, **scored}


_LINE = TypeAdapter(RecordedAnswer)


class RecordedModel(BatchedChatModel):
    """Model that returns recorded answers to cases, with the cases' redaction.

    Raises:
        DataError: Like `read_recorded`; or cases with the same question have different answers.
    """

    batch_size = 100  # lookups are fast, but requests take memory

    def __init__(
        self, path: Path, cases: Sequence[Example], redaction: Redaction | None = None
    ) -> None:
        self.recorded = recorded = read_recorded(path, redaction)
        self.fingerprint = _fingerprint(recorded)
        self._answers: dict[str, RecordedAnswer] = {}
        for case in cases:
            if (answer := recorded.get(case.case_id)) is None:
                continue
            # A request does not name its case, so a question can have only one answer.
            first = self._answers.setdefault(_question(case.prompt), answer)
            if (first.answer, first.scores or None) != (answer.answer, answer.scores or None):
                raise DataError(
                    f"{path}: the cases {first.case!r} and {answer.case!r} have the same question "
                    "but different recorded answers. Remove one of them from data.test."
                )

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Placed]:
        """Look up all questions."""
        yield [(at, await self.reply(request)) for at, request in enumerate(requests)]

    async def reply(self, request: Request) -> Reply:
        """Look up the question."""
        answer = self._answers.get(_question(request.messages))
        if answer is None:
            return Reply(error="no answer to this case was recorded", finish_reason="error")
        return Reply(text=answer.answer, given=answer.scores or None)


def check_recorded(job: Job, cases: Sequence[Example]) -> None:
    """Raise DataError for recorded answers that are unreadable, or answer or score no case.

    A missing or empty file is accepted, because the model may still have to answer.
    """
    keys = {
        each.key
        for each in job.evaluate.scorers
        if isinstance(each, RecordedScore) and each.file is None
    }
    for spec in job.evaluate.contenders:
        if not isinstance(spec, Recorded) or not (path := job.folder / spec.answers).exists():
            continue
        recorded = RecordedModel(path, cases).recorded
        answers = [recorded[case.case_id] for case in cases if case.case_id in recorded]
        if not recorded:
            continue
        if not answers:
            raise DataError(
                f"{path} has no answer to any of the {len(cases)} test cases. Its ids look like "
                f"{', '.join(list(recorded)[:3])}; those of the cases look like {cases[0].case_id}."
            )
        for key in sorted(keys):
            if not any(key in (answer.scores or {}) for answer in answers):
                known = sorted({name for answer in answers for name in answer.scores or {}})
                raise DataError(
                    f"{path} lacks the score {key!r}, which the scorer recorded_score reads. "
                    f"Available scores: {', '.join(known) or 'none'}."
                )


def recorded_fingerprint(path: Path, redaction: Redaction | None = None) -> str:
    """Return the fingerprint of a file of recorded answers. Raises like `read_recorded`."""
    return _fingerprint(read_recorded(path, redaction))


def _fingerprint(recorded: Mapping[str, RecordedAnswer]) -> str:
    return f"recorded:{digest_all(recorded[name].content for name in sorted(recorded))}"


def read_answers(path: Path) -> dict[str, str]:
    """Return the texts of recorded answers by case; see `read_recorded`."""
    return {case: recorded.answer for case, recorded in read_recorded(path).items()}


def read_recorded(path: Path, redaction: Redaction | None = None) -> dict[str, RecordedAnswer]:
    """Return recorded answers by case, redacted if a redaction is given.

    Raises:
        DataError: The file is missing, a line is not a recorded answer, or a case has two.
    """
    try:
        lines = content_of(path).decode().split("\n")  # a text may contain other line separators
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path} cannot be read: {why}. It must have a contender's recorded answers in UTF-8; "
            "set its path in evaluate.contenders."
        ) from error
    answers: dict[str, RecordedAnswer] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip("\r"):
            continue
        try:
            answer = _LINE.validate_json(line)
        except ValidationError as error:
            raise DataError(
                f'{path}:{number} is not a recorded answer. Write {{"case": ID, "answer": TEXT}}.'
            ) from error
        if redaction is not None:
            answer = replace(answer, answer=redaction.redact(answer.answer))
        if answers.setdefault(answer.case, answer) != answer:
            raise DataError(
                f"{path}:{number} is a second answer to the case {answer.case!r}. Keep one of them."
            )
    return answers


def mend(path: Path) -> None:
    """Cut off the last line if a process died while writing it."""
    with open(path, "r+b", opener=no_link) as file:
        content = file.read()
        if not content or content.endswith(b"\n"):
            return
        whole, _, last = content.rpartition(b"\n")
        try:
            _LINE.validate_json(last)
        except ValidationError:
            file.truncate(len(whole) + 1 if whole else 0)
        else:
            file.write(b"\n")


def answer_line(case: str, answer: str, scores: Mapping[str, float] | None = None) -> str:
    """Return a line of the file, including its end."""
    line = RecordedAnswer(case, answer, {**scores} if scores else None)
    return json.dumps(line.content, ensure_ascii=False) + "\n"


def _question(messages: Sequence[Message]) -> str:
    return digest([[turn.role, turn.text] for turn in messages])
