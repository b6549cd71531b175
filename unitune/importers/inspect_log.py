"""Logs of inspect (``.eval`` and ``.json``) as a suite: `read_log`.

A log holds one model's answers to the samples of one task, with the scores of every scorer, which
come along as they are. A case is what the model was asked (the messages before its answer, a
system message and a template's words among them) where there was one answer; where a sample took
several turns, it is the sample's input, and the answer is the last.

Source: inspect_ai 0.3.285, src/inspect_ai/log (log format version 2), as installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast
from zipfile import ZipFile

from pydantic import BaseModel, JsonValue, ValidationError

from unitune.data.example import Example, Message
from unitune.errors import DataError, MissingExtra, UnituneError
from unitune.findings import Finding, clip, error
from unitune.importers.foreign import json_file, read_json
from unitune.importers.suite import Answers, Base, Suite
from unitune.workspace.install import install_command

VERSION = 2
ZSTD = 93
"""Of the compression methods of a zip file (PKWARE's APPNOTE 6.3.10, section 4.4.5)."""
LARGEST_SAMPLE = 64 << 20
"""Bytes of a sample, decompressed: long tasks of agents have some 10 MiB with all their events."""
READ = ("header.json", "samples/")
"""What is read of a log."""
MOST_RATIO = 100
"""Of decompressed to compressed bytes: transcripts of agents, have 20 to 50."""
LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Correct, partly, incorrect, no answer: what inspect's `value_to_float` makes of them."""
BACKENDS = {
    "openai": "openai",
    "azureai": "azure",
    "anthropic": "anthropic",
    "bedrock": "bedrock",
    "google": "vertex",
    "together": "together",
    "hf": "local",
}
"""By the beginning of a model's name."""
LARGEST = 1e300
"""Of a score; a whole number of more digits is no float."""
ATTACHED = "attachment://"
EXPORT = "inspect log convert {file} --to json --output-dir json"


class Turn(BaseModel):
    """One message of a sample."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, JsonValue]] = ""
    source: str | None = None
    tool_calls: list[JsonValue] | None = None


class Output(BaseModel):
    """What the model said last."""

    completion: str = ""
    choices: list[JsonValue] = []


class Given(BaseModel):
    """A score."""

    value: JsonValue = None


class Sample(BaseModel):
    """One sample in one epoch; what else inspect writes is not looked at."""

    id: str | int
    epoch: int = 1
    input: str | list[Turn]
    target: str | list[str] = ""
    messages: list[Turn] = []
    output: Output = Output()
    scores: dict[str, Given] | None = None
    attachments: dict[str, str] = {}
    error: JsonValue = None


class Evaluation(BaseModel):
    """What was run."""

    task: str
    model: str


class Header(BaseModel):
    """The beginning of a log."""

    version: int
    eval: Evaluation
    samples: list[JsonValue] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sample asked.

    Args:
        messages: Of the case.
        several: Whether the answer took more than one turn.
    """

    messages: tuple[Message, ...]
    several: bool


class NotText(ValueError):
    """A sample that holds more than text."""


def read_log(path: Path) -> Suite:
    """Read a log of inspect.

    Args:
        path: ``.eval`` or ``.json``.

    Raises:
        DataError: It cannot be read, or is no log.
        MissingExtra: It is compressed by zstd, which this Python cannot read.
    """
    header, samples = _content(path)
    cases: list[Example] = []
    texts: dict[str, str] = {}
    scores: dict[str, dict[str, float]] = {}
    findings: list[Finding] = []
    several = 0
    for sample in samples:
        case = str(sample.id)
        if sample.epoch > 1:
            findings.append(_repeat(path, sample))
            continue
        try:
            asked = _asked(sample)
            cases.append(_case(sample, asked.messages))
        except ValidationError as failure:
            findings.append(_problem(path, sample, f"it makes no case: {_first(failure)}"))
            continue
        except NotText as failure:
            findings.append(_problem(path, sample, str(failure)))
            continue
        several += asked.several
        if sample.error is None and sample.output.choices:
            texts[case] = _whole(sample.output.completion, sample)
            scores[case] = dict(_scores(sample.scores or {}))
    return Suite(
        name=header.eval.task.rpartition("/")[2],
        file=str(path),
        cases=tuple(cases),
        scorers=(),
        answers=(Answers(header.eval.model, texts, scores),),
        findings=tuple(findings),
        notes=tuple(_notes(several)),
        base=_base(header.eval.model),
    )


def _content(path: Path) -> tuple[Header, Sequence[Sample]]:
    if path.suffix == ".json":
        value = json_file(path, "a log of inspect")
        header = _checked(path, value)
        return header, [_sample(path, "samples", one) for one in header.samples or []]
    try:
        with _zip_file(path) as archive:
            return _extracted(path, archive)
    except UnituneError:
        raise
    except Exception as failure:  # each way of packing has errors of its own
        raise DataError(
            f"{path} is no whole log of inspect: {failure}. A log ends in .eval or .json; what an "
            "evaluation that was killed has left is made whole by `inspect log recover`."
        ) from failure


def _extracted(path: Path, archive: ZipFile) -> tuple[Header, Sequence[Sample]]:
    _refuse_bombs(path, archive)
    header = _checked(path, _parsed(path, archive, "header.json"))
    names = [name for name in archive.namelist() if name.startswith("samples/")]
    samples = [_sample(path, name, _parsed(path, archive, name)) for name in names]
    return header, sorted(samples, key=_order)


def _order(sample: Sample) -> tuple[int, int | str, int]:
    """Sort numbers by value, before texts; a log holds samples in the order of their ends."""
    return (isinstance(sample.id, str), sample.id, sample.epoch)


def _zip_file(path: Path) -> ZipFile:
    """Open a log, which inspect compresses by zstd; zipfile knows that from Python 3.14 on."""
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
            f"{install_command('inspect')}. Or write the log as JSON: {EXPORT.format(file=path)}"
        ) from missing
    return cast("ZipFile", with_zstd.ZipFile(path))  # the same, in a package of its own


def _refuse_bombs(path: Path, archive: ZipFile) -> None:
    """Refuse a log that would decompress to more than a log does, before anything is.

    `zipfile` gives no more of a member than what is declared of it here.

    Raises:
        DataError: It would.
    """
    entries = [one for one in archive.infolist() if one.filename.startswith(READ)]
    whole, compressed = sum(one.file_size for one in entries), path.stat().st_size
    for entry in entries:
        if entry.file_size > LARGEST_SAMPLE:
            raise DataError(
                f"{path}: {clip(entry.filename)} in it decompresses to {entry.file_size:,} bytes; "
                f"a sample may have {LARGEST_SAMPLE:,}. If the log is your own, write it as JSON: "
                f"{EXPORT.format(file=path)}"
            )
    if whole > LARGEST_SAMPLE + MOST_RATIO * compressed:
        raise DataError(
            f"{path}: its {compressed:,} bytes decompress to {whole:,}, more than {MOST_RATIO} "
            f"times as many. If the log is your own, write it as JSON: {EXPORT.format(file=path)}"
        )


def _parsed(path: Path, archive: ZipFile, name: str) -> JsonValue:
    return read_json(archive.read(name), f"{path}: {name} in it", "of inspect")


def _checked(path: Path, value: JsonValue) -> Header:
    try:
        header = Header.model_validate(value)
    except ValidationError as failure:
        raise DataError(f"{path} is no log of inspect: {_first(failure)}.") from failure
    if header.version != VERSION:
        raise DataError(
            f"{path} is a log of version {header.version}; version {VERSION} is read. Convert it "
            f"with a current inspect: {EXPORT.format(file=path)}"
        )
    return header


def _sample(path: Path, name: str, value: JsonValue) -> Sample:
    try:
        return Sample.model_validate(value)
    except ValidationError as failure:
        raise DataError(
            f"{path}: {name} holds no sample of inspect: {_first(failure)}."
        ) from failure


def _first(failure: ValidationError) -> str:
    first = failure.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _asked(sample: Sample) -> Asked:
    """Return what the model was asked, from what was said in a sample."""
    *before, last = sample.messages or [Turn(role="user")]
    generated = [turn for turn in sample.messages if turn.source == "generate"]
    one_answer = generated == [last] and all(turn.role != "tool" for turn in before)
    if one_answer:
        return Asked(tuple(_message(turn, sample) for turn in before), several=False)
    given = sample.input
    turns = [Turn(role="user", content=given)] if isinstance(given, str) else given
    return Asked(tuple(_message(turn, sample) for turn in turns), several=len(generated) > 1)


def _message(turn: Turn, sample: Sample) -> Message:
    if isinstance(turn.content, str):
        return Message(role=turn.role, content=_whole(turn.content, sample))
    texts: list[str] = []
    for part in turn.content:
        if part.get("type") == "text":
            texts.append(_whole(str(part.get("text", "")), sample))
        elif turn.role != "assistant":  # what a model thought is no part of what it was asked
            raise NotText(f"a message of {turn.role} holds {clip(part.get('type'))}, not text")
    return Message(role=turn.role, content="".join(texts))


def _whole(text: str, sample: Sample) -> str:
    """Return a text; inspect keeps long ones apart."""
    return sample.attachments.get(text.removeprefix(ATTACHED), text)


def _case(sample: Sample, messages: tuple[Message, ...]) -> Example:
    targets = [sample.target] if isinstance(sample.target, str) else sample.target
    expected = " | ".join(_whole(target, sample) for target in targets)
    more: dict[str, JsonValue] = {"targets": [*targets]} if len(targets) > 1 else {}
    return Example.model_validate(
        {"messages": messages, "id": str(sample.id), "expected": expected or None, **more}
    )


def _scores(scores: Mapping[str, Given]) -> Iterator[tuple[str, float]]:
    """Yield the scores that are figures; of a score with several values each by its own name."""
    for name, given in scores.items():
        parts = given.value if isinstance(given.value, dict) else {"": given.value}
        for part, value in parts.items():
            figure = _figure(value)
            if figure is not None:
                yield f"{name}.{part}" if part else name, figure


def _figure(value: JsonValue) -> float | None:
    if isinstance(value, bool | int | float):  # NaN and the infinite: not scored
        return float(value) if abs(value) <= LARGEST else None
    return LETTERS.get(value) if isinstance(value, str) else None


def _repeat(path: Path, sample: Sample) -> Finding:
    return _problem(
        path, sample, f"epoch {sample.epoch} answers again, and a case has one recorded answer"
    )


def _problem(path: Path, sample: Sample, what: str) -> Finding:
    return error(
        "sample", f"sample {sample.id}: {what}.", "Leave such samples out with --drop."
    ).at(file=str(path))


def _notes(several: int) -> Iterator[str]:
    yield (
        "The scores are inspect's own. A contender that is asked afresh needs a scorer of "
        "unitune's, such as `contains` for inspect's `includes`."
    )
    if several:
        yield (
            f"{several} samples took several turns: their cases show the input alone, and the last "
            "answer. A model that is asked afresh gets no tools."
        )


def _base(model: str) -> Base | None:
    vendor, _, name = model.partition("/")
    return Base(BACKENDS[vendor], name) if vendor in BACKENDS and name else None
