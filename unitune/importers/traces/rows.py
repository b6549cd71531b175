"""Turn calls and feedback into rows, one per conversation, and write a job that trains on them.

There are also rows with ratings, and pairs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pydantic import JsonValue, ValidationError

from unitune.data.example import Example, called, digest
from unitune.data.families import families
from unitune.data.privacy.secrets import find_secrets, strings
from unitune.errors import DataError, UserError
from unitune.findings import Finding
from unitune.importers.new_job import Wishes, draft_job
from unitune.importers.traces.calls import Call, Exports, Value, read_traces
from unitune.importers.traces.messages import Fields, Unusable, fields, items
from unitune.importers.vendor_jobs import moved
from unitune.text import listed

CONVERSATION: Final = "session"  # key of each row
TEST_SHARE, MOST_CASES = 0.2, 500
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


@dataclass(slots=True)
class TraceRows:
    """Rows of traces by purpose, and what became of the calls.

    Args:
        train: Rows to train on.
        test: Held-out rows, of other conversations than all others.
        ratings: Rows with a rating (`kto_tag`), good and bad.
        pairs: Preference rows: a good and a bad answer to the same messages.
        counts: Calls by what became of them.
        feedback: Name of the scores used; None without scores.
    """

    train: list[Example] = field(default_factory=list[Example])
    test: list[Example] = field(default_factory=list[Example])
    ratings: list[Example] = field(default_factory=list[Example])
    pairs: list[Example] = field(default_factory=list[Example])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    feedback: str | None = None


def rows_of(exports: Exports, feedback: str | None = None, good: str | None = None) -> TraceRows:
    """Make rows of the calls in exports of tracing tools.

    A call whose messages a later call repeats is part of the later call's row. Of near duplicates,
    one row is kept: a good one if any is rated good, otherwise the latest. Answers rated bad are
    not trained on: the row is left out, or the turn has weight 0. Rows with a secret are left out.

    Args:
        exports: Calls and scores.
        feedback: Name of the scores that rate answers; the only name by default.
        good: Lowest good score or the good label; by default true, above 0 in a scale from -1 to
            1, and at least 0.5 in a scale from 0 to 1.

    Raises:
        UserError: No score has the name, or it is not clear which of its values are good.
    """
    made = TraceRows(feedback=_feedback(exports, feedback))
    rated = _ratings(exports, made.feedback, good) if made.feedback else {}
    keys = {call.call_id: _keys(call) for call in exports.calls}
    bad = {keys[call][-1] for call, is_good in rated.items() if not is_good}
    counts = Counter({"calls": len(exports.calls) + sum(exports.unusable.values())})
    counts.update(exports.unusable)
    usable = list[tuple[Call, Example]]()
    for call in exports.calls:
        try:
            usable.append((call, _example(call, keys[call.call_id], bad)))
        except Unusable as reason:
            counts[str(reason)] += 1
    histories = {key for call, _ in usable for key in keys[call.call_id][:-1]}
    kept = list[tuple[Call, Example]]()
    for call, example in usable:
        if keys[call.call_id][-1] in histories:
            counts["continued by a later call"] += 1
        elif rated.get(call.call_id) is False:
            counts["rated bad"] += 1
        else:
            kept.append((call, example))
    rows = list(_without_near_duplicates(kept, rated))
    counts["near duplicates"] = len(kept) - len(rows)
    held = _held_out(rows)
    made.test = [row for row in rows if _conversation(row) in held]
    made.train = [row for row in rows if _conversation(row) not in held]
    learnt = [
        example.model_copy(update={"kto_tag": rated[call.call_id]})
        for call, example in usable
        if call.call_id in rated and call.conversation not in held
    ]
    made.ratings, made.pairs = learnt, list(_pairs(learnt))
    made.counts = {what: count for what, count in counts.items() if count}
    return made


def _feedback(exports: Exports, wanted: str | None) -> str | None:
    names = sorted({score.name for score in exports.scores})
    if wanted is not None and wanted not in names:
        has = f"has scores named {listed(names)}" if names else "has no scores"
        raise UserError(f"--feedback is {wanted!r}, but the export {has}.")
    if wanted is None and len(names) > 1:
        raise UserError(
            f"the export has scores named {listed(names)}. Pass the one that rates the answers: "
            f"--feedback {names[0]}"
        )
    return wanted or next(iter(names), None)


def _ratings(exports: Exports, name: str, good: str | None) -> dict[str, bool]:
    """Return whether each rated call is good; one bad score makes it bad."""
    last = {about: call.call_id for call in exports.calls for about in (call.call_id, *call.above)}
    scores = [score for score in exports.scores if score.name == name]
    is_good = _rule(name, [score.value for score in scores], good)
    rated = dict[str, bool]()
    for score in scores:
        if (call := last.get(score.about)) is not None:
            rated[call] = rated.get(call, True) and is_good(score.value)
    return rated


def _rule(name: str, values: Sequence[Value], good: str | None) -> Callable[[Value], bool]:
    """Return which scores are good."""
    numbers = [float(value) for value in values if not isinstance(value, str)]
    if good is not None and not _NUMBER.fullmatch(good):
        return lambda value: str(value) == good
    if good is not None:
        return lambda value: not isinstance(value, str) and value >= float(good)
    low, high = min(numbers, default=0), max(numbers, default=0)
    if len(numbers) < len(values) or low < -1 or high > 1:
        seen = listed([str(value) for value in sorted({*values}, key=str)[:5]])
        raise UserError(
            f"the scores named {name!r} are {seen}, so it is not clear which are good. Pass the "
            "lowest good score or the good label: --good VALUE"
        )
    return lambda value: float(value) > 0 if low < 0 else float(value) >= 0.5


def _keys(call: Call) -> list[str]:
    """Return a hash of the messages up to each turn, the answer's last."""
    turns: list[Any] = [
        [
            turn["role"],
            turn.get("content") or "",
            called(map(fields, items(turn.get("tool_calls")))),
        ]
        for turn in (*call.prompt, call.answer)
    ]
    return list(accumulate(turns, lambda known, turn: digest([known, turn]), initial=""))[1:]


def _example(call: Call, keys: Sequence[str], bad: set[str]) -> Example:
    """Return a call as a row; raises `Unusable`."""
    messages = list[JsonValue]()
    for turn, key in zip((*call.prompt, call.answer), keys, strict=True):
        is_history = key != keys[-1]
        messages.append({**turn, "weight": 0} if is_history and key in bad else turn)
    row: Fields = {"messages": messages, "id": call.call_id, CONVERSATION: call.conversation}
    if call.tools:
        row["tools"] = list(call.tools)
    if any(find_secrets(text) for text in strings(row)):
        raise Unusable("with a secret")
    try:
        return Example.model_validate(row)
    except ValidationError as failure:
        raise Unusable(failure.errors()[0]["msg"]) from failure


def _without_near_duplicates(
    kept: Sequence[tuple[Call, Example]], rated: Mapping[str, bool]
) -> Iterator[Example]:
    best = dict[int, tuple[bool, int]]()
    for at, head in enumerate(families([example for _, example in kept])):
        best[head] = max(best.get(head, (False, -1)), (rated.get(kept[at][0].call_id, False), at))
    for _, at in sorted(best.values(), key=lambda found: found[1]):
        yield kept[at][1]


def _conversation(row: Example) -> JsonValue:
    return (row.model_extra or {})[CONVERSATION]


def _held_out(rows: Sequence[Example]) -> set[JsonValue]:
    """Choose conversations for the test by their hash, while they fit."""
    left = min(int(len(rows) * TEST_SHARE), MOST_CASES)
    sizes = Counter(map(_conversation, rows))
    held = set[JsonValue]()
    for conversation in sorted(sizes, key=lambda each: digest([each])):
        if sizes[conversation] <= left:
            held.add(conversation)
            left -= sizes[conversation]
    return held


def _pairs(rated: Iterable[Example]) -> Iterator[Example]:
    """Yield the latest good and bad answer to the same messages as preference rows."""
    answers = dict[str, dict[bool | None, Example]]()
    for row in rated:
        answers.setdefault(row.input_key, {})[row.kto_tag] = row
    for found in answers.values():
        if len(found) == 2 and found[True].messages[-1] != found[False].messages[-1]:
            worse = found[False].messages[-1:]
            update = {"non_preferred_output": worse, "kto_tag": None}
            yield found[True].model_copy(update=update)


FEWEST_ROWS = 10


@dataclass(frozen=True, slots=True)
class ImportedTraces:
    """Files written, their rows, and findings about them."""

    files: tuple[Path, ...]
    rows: TraceRows
    findings: tuple[Finding, ...]


def import_traces(
    files: Sequence[Path], folder: Path, *, feedback: str | None = None, good: str | None = None
) -> ImportedTraces:
    """Write the calls in exports of tracing tools as rows, with a job that trains on them.

    The folder gets ``train.jsonl``, ``test.jsonl`` and ``unitune.yaml``; with feedback also
    ``ratings.jsonl`` and ``pairs.jsonl``.

    Args:
        files: OTLP JSON, Phoenix's spans and annotations, Langfuse's observations and scores, or
            LangSmith's runs and feedback.
        folder: Folder for the files; files there with other content are not overwritten.
        feedback: Name of the scores that rate answers; the only name by default.
        good: Lowest good score or the good label.

    Raises:
        DataError: A file cannot be read, or too few calls can be used.
        UserError: The feedback is not clear, or another file is in the way.
    """
    rows = rows_of(read_traces(files), feedback, good)
    if len(rows.train) + len(rows.test) < FEWEST_ROWS:
        counts = ", ".join(f"{count:,} {what}" for what, count in rows.counts.items())
        raise DataError(
            f"{', '.join(map(str, files))}: {len(rows.train) + len(rows.test)} conversations are "
            f"left to train on, but at least {FEWEST_ROWS} are needed ({counts}). Nothing was "
            "written. Export a longer period."
        )
    with TemporaryDirectory() as temporary:
        folder_of_drafts = Path(temporary)
        parts = {"train": rows.train, "test": rows.test}
        parts |= {"ratings": rows.ratings, "pairs": rows.pairs}
        for name, examples in parts.items():
            if examples:
                lines = "".join(f"{example.line}\n" for example in examples)
                (folder_of_drafts / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        target = folder_of_drafts / "unitune.yaml"
        wishes = Wishes(test="test.jsonl", clusters=CONVERSATION, drop=True, name=files[0].stem)
        draft = draft_job(folder_of_drafts / "train.jsonl", target, wishes)
        target.write_text(draft.text, encoding="utf-8")
        findings = tuple(
            each.model_copy(update={"file": each.file and Path(each.file).name})
            for each in draft.findings
        )
        return ImportedTraces(moved(folder_of_drafts, folder), rows, findings)
