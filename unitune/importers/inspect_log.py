"""Read logs of inspect (``.eval`` and ``.json``) as a suite.

A case holds the messages before the answer or, if the sample took several turns, its input.

Source: inspect_ai 0.3.285, src/inspect_ai/log (log format version 2), as installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, cast
from zipfile import ZipFile

from pydantic import BaseModel, JsonValue, ValidationError

from unitune.data.example import Example, Message
from unitune.errors import DataError, MissingExtra, UnituneError
from unitune.files.validation import first_problem
from unitune.findings import Finding, error
from unitune.importers.suite import Answers, Suite, as_score, base_of, json_file, read_json
from unitune.text import clip
from unitune.workspace.install import install_command

VERSION = 2
ZSTD = 93  # compression method of a zip file (PKWARE's APPNOTE 6.3.10, section 4.4.5)
# Decompressed bytes of a sample: long agent tasks have some 10 MiB with all events
LARGEST_SAMPLE = 64 << 20
MOST_RATIO = 100  # decompressed per compressed byte; transcripts of agents have 20 to 50
# Correct, partial, incorrect, no answer, with the values of inspect's `value_to_float`
LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
ATTACHED = "attachment://"
EXPORT = "inspect log convert {} --to json --output-dir json"
M = TypeVar("M", bound=BaseModel)


class _Turn(BaseModel):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, JsonValue]] = ""
    source: str | None = None


class _Output(BaseModel):
    completion: str = ""
    choices: list[JsonValue] = []


class _ScoreOf(BaseModel):
    value: JsonValue = None


class _Sample(BaseModel):
    id: str | int
    epoch: int = 1
    input: str | list[_Turn]
    target: str | list[str] = ""
    messages: list[_Turn] = []
    output: _Output = _Output()
    scores: dict[str, _ScoreOf] | None = None
    attachments: dict[str, str] = {}
    error: JsonValue = None

    def whole(self, text: str) -> str:
        return self.attachments.get(text.removeprefix(ATTACHED), text)


class _Evaluation(BaseModel):
    task: str
    model: str


class _Failure(BaseModel):
    message: str = ""


class _Header(BaseModel):
    version: int
    status: str = "success"
    error: _Failure | None = None
    eval: _Evaluation
    samples: list[JsonValue] | None = None


def read_log(path: Path) -> Suite:
    """Read a log of inspect; raises `DataError`, or `MissingExtra` for zstd."""
    header, samples = _content(path)
    if header.status == "error" and not any(sample.scores for sample in samples):
        reason = clip(header.error.message) if header.error else "the log gives no reason"
        raise DataError(
            f"{path}: the evaluation failed: {reason}. Run it again with `inspect eval-retry`."
        )
    cases: list[Example] = []
    texts: dict[str, str] = {}
    scores: dict[str, dict[str, float]] = {}
    findings: list[Finding] = []
    several = 0
    for sample in samples:
        try:
            cases.append(_case(sample))
        except ValueError as failure:
            why = first_problem(failure) if isinstance(failure, ValidationError) else failure
            findings.append(
                error(
                    "sample",
                    f"sample {sample.id}: {why}.",
                    "Pass --drop to leave such samples out.",
                ).at(file=str(path))
            )
            continue
        several += sum(turn.source == "generate" for turn in sample.messages) > 1
        if sample.error is None and sample.output.choices:
            texts[str(sample.id)] = sample.whole(sample.output.completion)
            scores[str(sample.id)] = dict(_scores(sample.scores or {}))
    vendor, _, model = header.eval.model.partition("/")
    return Suite(
        name=header.eval.task.rpartition("/")[2],
        file=str(path),
        cases=tuple(cases),
        scorers=(),
        answers=(Answers(header.eval.model, texts, scores),),
        findings=tuple(findings),
        notes=tuple(_notes(several)),
        base=base_of(vendor, model),
    )


def _content(path: Path) -> tuple[_Header, Sequence[_Sample]]:
    if path.suffix == ".json":
        header = _header(path, json_file(path, "a log of inspect"))
        return header, [_parsed(_Sample, path, "sample", value) for value in header.samples or []]
    try:
        with _zip_file(path) as archive:
            _refuse_bombs(path, archive)
            contents = {
                name: read_json(archive.read(name), f"{path}: {name} in it", "of inspect")
                for name in archive.namelist()
                if name == "header.json" or name.startswith("samples/")
            }
        header = _header(path, contents.pop("header.json"))
        samples = [_parsed(_Sample, path, name, value) for name, value in contents.items()]
    except UnituneError:
        raise
    except Exception as failure:  # each compression raises its own errors
        raise DataError(
            f"{path} is not a complete log of inspect: {failure}. A log ends in .eval or .json. "
            "Repair the log of a killed evaluation with `inspect log recover`."
        ) from failure
    # Numbers by value, then texts; a log holds samples in the order in which they ended.
    return header, sorted(
        samples, key=lambda sample: (isinstance(sample.id, str), sample.id, sample.epoch)
    )


def _zip_file(path: Path) -> ZipFile:
    """Open a log, which inspect compresses by zstd; zipfile supports it from Python 3.14."""
    archive = ZipFile(path)
    zstd = any(entry.compress_type == ZSTD for entry in archive.infolist())
    if not zstd or sys.version_info >= (3, 14):
        return archive
    archive.close()
    try:
        from backports.zstd import zipfile as with_zstd  # noqa: PLC0415 - an extra
    except ImportError as missing:
        raise MissingExtra(
            f"{path} is compressed by zstd, which needs the package backports.zstd. Install it: "
            f"{install_command('inspect')}. Or write the log as JSON: {EXPORT.format(path)}"
        ) from missing
    return cast("ZipFile", with_zstd.ZipFile(path))  # the same class in a package


def _refuse_bombs(path: Path, archive: ZipFile) -> None:
    """Refuse a log that would decompress to far more than a log does."""
    entries = [
        entry
        for entry in archive.infolist()
        if entry.filename.startswith(("header.json", "samples/"))
    ]
    whole, compressed = sum(entry.file_size for entry in entries), path.stat().st_size
    largest = max(entries, key=lambda entry: entry.file_size, default=None)
    if largest and largest.file_size > LARGEST_SAMPLE:
        what = (
            f"its member {clip(largest.filename)} decompresses to {largest.file_size:,} bytes; a "
            f"sample may have {LARGEST_SAMPLE:,}"
        )
    elif whole > LARGEST_SAMPLE + MOST_RATIO * compressed:
        what = (
            f"its {compressed:,} bytes decompress to {whole:,}, more than {MOST_RATIO} times as "
            "many"
        )
    else:
        return
    raise DataError(
        f"{path}: {what}. If you trust the log, write it as JSON: {EXPORT.format(path)}"
    )


def _header(path: Path, value: JsonValue) -> _Header:
    header = _parsed(_Header, path, "log", value)
    if header.version != VERSION:
        raise DataError(
            f"{path} has log version {header.version}; only {VERSION} is supported. Convert it "
            f"with a current inspect: {EXPORT.format(path)}"
        )
    return header


def _parsed(model: type[M], path: Path, what: str, value: JsonValue) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as failure:
        raise DataError(
            f"{path} is not a {what} of inspect: {first_problem(failure)}."
        ) from failure


def _case(sample: _Sample) -> Example:
    if sample.epoch > 1:
        raise ValueError(
            f"epoch {sample.epoch} answers again, but a case has only one recorded answer"
        )
    targets = [sample.target] if isinstance(sample.target, str) else sample.target
    content: dict[str, object] = {
        "messages": [_message(turn, sample) for turn in _question(sample)],
        "id": str(sample.id),
        "expected": " | ".join(map(sample.whole, targets)) or None,
    }
    if len(targets) > 1:
        content["targets"] = targets
    return Example.model_validate(content)


def _question(sample: _Sample) -> Sequence[_Turn]:
    *before, last = sample.messages or [_Turn(role="user")]
    generated = [turn for turn in sample.messages if turn.source == "generate"]
    if generated == [last] and all(turn.role != "tool" for turn in before):
        return before
    given = sample.input
    return [_Turn(role="user", content=given)] if isinstance(given, str) else given


def _message(turn: _Turn, sample: _Sample) -> Message:
    if isinstance(turn.content, str):
        return Message(role=turn.role, content=sample.whole(turn.content))
    texts: list[str] = []
    for part in turn.content:
        if part.get("type") == "text":
            texts.append(sample.whole(str(part.get("text", ""))))
        elif turn.role != "assistant":  # reasoning is not part of the question
            raise ValueError(f"a message of {turn.role} holds {clip(part.get('type'))}, not text")
    return Message(role=turn.role, content="".join(texts))


def _scores(scores: Mapping[str, _ScoreOf]) -> Iterator[tuple[str, float]]:
    """Yield the numeric scores; a score with several values gives one for each."""
    for name, score in scores.items():
        parts = score.value if isinstance(score.value, dict) else {"": score.value}
        for part, value in parts.items():
            number = LETTERS.get(value) if isinstance(value, str) else as_score(value)
            if number is not None:
                yield f"{name}.{part}" if part else name, number


def _notes(several: int) -> Iterator[str]:
    yield (
        "The scores are inspect's. A contender that answers anew needs a scorer of unitune, "
        "such as `contains` for inspect's `includes`."
    )
    if several:
        yield (
            f"{several} samples took several turns. Their cases have only the input and the last "
            "answer. A model that answers anew gets no tools."
        )
