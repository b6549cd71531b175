"""Prepare the cases of a comparison with their scorers, clusters and slices.

Identical cases count once, whatever their ids. Cases with the same or nearly the same question
(`unitune.data.families`) belong to one cluster.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Literal, NamedTuple

from pydantic import JsonValue

from unitune.backends.output_limit import OutputLimit, longest_expected
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, digest
from unitune.data.families import Groups, families
from unitune.data.load import SOURCE
from unitune.data.overlap import SharedCase, leaks, refuse
from unitune.data.tools import each_answer, opening
from unitune.errors import DataError, JobError, Leak
from unitune.evaluate.documents.records import Record
from unitune.evaluate.documents.results import LeakResult
from unitune.evaluate.inference.dialogues import Dialogues
from unitune.evaluate.inference.engine import Question
from unitune.evaluate.prompts.prompts import Nearest, Prompt
from unitune.evaluate.robustness import ChangedCase, changed_cases
from unitune.evaluate.robustness import notes as robustness_notes
from unitune.evaluate.scoring.scorers import Scoring, attempt_of, scoring_of
from unitune.job.contenders import ContenderSpec, Recorded
from unitune.job.job import Job
from unitune.models import Request
from unitune.planning.preflight import ResolvedJob
from unitune.scorers.interface import Attempt
from unitune.scorers.measures import Stability

# Settings that a model may reject if the job leaves them to `auto`
FIXABLE: tuple[Literal["temperature", "max_tokens"], ...] = ("temperature", "max_tokens")
# Smaller slices are skipped: they show noise, and each reduces the others' power
SMALLEST_SLICE = 10


class Slice(NamedTuple):
    """Positions of the cases with one value of one key."""

    name: str
    members: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """Cases with scorers."""

    cases: tuple[Example, ...]  # test cases, each once
    dev: tuple[Example, ...]  # rows that choose prompts and the best baseline
    scoring: Scoring
    output_limit: OutputLimit
    leaks: LeakResult
    clusters: list[str] | None = None  # cluster of each case; None without clusters
    slices: tuple[Slice, ...] = ()  # parts of the cases to report
    notes: tuple[str, ...] = ()  # notes on the cases for readers of the verdict
    repeats: int = 1  # requests per test case
    changed: tuple[ChangedCase, ...] = ()  # changed questions, which measure robustness
    # Settings that all requests share
    template: Request = field(default_factory=lambda: Request(messages=()))
    # Ids of dropped duplicates, each with the id of the kept case
    copies: Mapping[str, str] = field(default_factory=dict[str, str])
    omitted: int = 0  # number of cases left out by a preview (`--limit`)
    dialogues: Dialogues | None = None  # tools of test and dev cases that take several turns

    @property
    def size(self) -> int:
        """Number of requests for the unchanged cases."""
        return len(self.cases) * self.repeats

    @cached_property
    def digest(self) -> str:
        """Digest of the cases in any order, which identifies uses of a test."""
        return digest(sorted(case.case_hash for case in self.cases))

    def identity(self, fingerprint: str, prompt: Prompt) -> str:
        """Return the digest of what determines a contender's answers to any cases."""
        shots = prompt.shots
        shown = (
            [shots.count, shots.neighbours.fingerprint]
            if isinstance(shots, Nearest)
            else [shot.case_hash for shot in shots]
        )
        settings: list[object] = [
            self.template.temperature,
            self.repeats,
            self.output_limit.fixed,
            self.template.response_schema,
        ]
        if self.dialogues:
            settings += [self.dialogues.max_turns, self.dialogues.tools.fingerprint]
            if user := self.dialogues.user:
                settings.append(user.model_dump(mode="json"))
        return digest([fingerprint, prompt.instructions, shown, settings])

    def asked(self, case: Example) -> Example:
        """Return a case as a model is asked: the beginning of its dialogue, or the row itself."""
        return opening(case) if self.dialogues else case

    def questions(
        self, prompt: Prompt, spec: ContenderSpec, rows: Sequence[Example] | None = None
    ) -> list[Question]:
        """Return the test cases with their repeats, then the changed questions; or other rows."""
        limit = self.output_limit.of(spec)
        cases, repeats = (self.cases, self.repeats) if rows is None else (rows, 1)

        def question(case: Example, repeat: int) -> Question:
            own = {
                "messages": prompt.messages(self.asked(case)),
                "tools": case.tools,
                "max_tokens": limit,
                "seed": repeat,
            }
            return Question(case.case_id, self.template.model_copy(update=own), repeat)

        asked = [question(case, repeat) for case in cases for repeat in range(repeats)]
        # A recorded contender has answers to the unchanged questions only.
        if rows is not None or isinstance(spec, Recorded):
            return asked
        own, numbers = [case.case_id for case in self.cases], Counter[int]()
        for at, _, example in self.changed:
            repeat = self.repeats + numbers[at]
            numbers[at] += 1
            asked.append(replace(question(example, 0), case=own[at], repeat=repeat))
        return asked

    def affected(self, measure: str) -> frozenset[int]:
        """Return the positions of the cases that a measure is about."""
        for each in self.scoring.measures:
            if each.name == measure and isinstance(each, Stability):
                return frozenset(at for at, change, _ in self.changed if change == each.change)
        return frozenset(range(len(self.cases)))

    def attempts(self, records: Sequence[Record]) -> list[Attempt]:
        """Return answers to the test cases, one per case and repeat, as attempts for scorers."""
        cases = (case for case in self.cases for _ in range(self.repeats))
        return [attempt_of(*pair) for pair in zip(cases, records, strict=True)]


def prepare(
    resolved: ResolvedJob,
    trained: Iterable[Dataset] = (),
    backends: Mapping[str, str] | None = None,
    *,
    limit: int | None = None,
) -> Task:
    """Prepare the task of a job, or of a preview with `limit` cases.

    `trained` are other training rows to search for test cases. `backends` are those of contenders
    that do not use the job's.

    Raises:
        JobError: The job has no test cases, or they lack a key that it names.
        DataError: Cases have the same id, or an expected answer cannot be read.
        Leak: Test cases occur in training rows, and the job refuses that or requires one.
    """
    job, splits = resolved.job, resolved.splits
    if splits.test is None:
        raise JobError(
            f"job {job.name!r} has no test cases, so nothing can be evaluated. Set data.test to a "
            "file of held-out rows."
        )
    evaluate, most = job.evaluate, job.evaluate.max_tokens
    test, copies = once_each(splits.test)
    trained = tuple(trained)
    if isinstance(job.data.test, float) and evaluate.leaks != "allow":
        _refuse_trained(test, trained)
    leaking = _leaks(resolved, trained, test)
    whole = without_leaks(job, leaking.cases, test, copies)
    cases = _first_look(whole, limit)
    heads = families(cases)
    answered = chain(splits.train, test)
    if evaluate.dialogue is not None:
        answered = chain.from_iterable(map(each_answer, answered))
    longest = longest_expected(answered)
    changed = changed_cases(cases, evaluate.robustness)
    slice_keys = (*((SOURCE,) if job.data.named_tests else ()), *evaluate.slices)
    return Task(
        cases=cases,
        dev=dev_rows(splits.validation)[: limit if len(cases) < len(whole) else None],
        scoring=scoring_of(job, splits.train),
        output_limit=OutputLimit(
            None if most == "auto" else most, longest, job.backend, backends or {}
        ),
        leaks=leaking,
        clusters=clusters_of(cases, heads, evaluate.clusters),
        slices=() if len(cases) < len(whole) else tuple(slices_of(cases, slice_keys)),
        notes=(
            *_notes(job, test, len(splits.test) - len(test), heads),
            *robustness_notes(cases, changed, evaluate.robustness),
        ),
        changed=changed,
        repeats=evaluate.repeats,
        template=Request(
            messages=(),
            temperature=0.0 if evaluate.temperature == "auto" else evaluate.temperature,
            fixed=tuple(name for name in FIXABLE if getattr(evaluate, name) != "auto"),
            response_schema=evaluate.response_schema,
            chat_template=job.chat_template,
            chat_template_kwargs=job.data.chat_template_kwargs,
        ),
        copies=copies,
        omitted=len(whole) - len(cases),
        dialogues=Dialogues.of(evaluate.dialogue, job.folder),
    )


def _first_look(cases: tuple[Example, ...], limit: int | None) -> tuple[Example, ...]:
    """Return the cases with the smallest hashes, so a larger preview includes a smaller one."""
    if limit is None or limit >= len(cases):
        return cases
    order = sorted(range(len(cases)), key=lambda at: digest(["look", cases[at].case_hash]))
    return tuple(cases[at] for at in sorted(order[:limit]))


def dev_rows(validation: Dataset) -> tuple[Example, ...]:
    """Return the rows that choose prompts, each once, in an order independent of the file."""
    distinct = {example.case_id: example for example in validation}
    return tuple(distinct[name] for name in sorted(distinct, key=digest))


def once_each(test: Dataset) -> tuple[Dataset, dict[str, str]]:
    """Return the test rows without duplicates, and the ids of duplicates with those of the kept.

    A case is required if any of its duplicates is.
    """
    by_id: dict[str, Row] = {}
    kept: dict[str, Row] = {}
    copies: dict[str, str] = {}
    for row in test.rows:
        name, content = row.example.case_id, row.example.case_hash
        other = by_id.setdefault(name, row)
        if other.example.case_hash != content:
            (file, line), (other_file, other_line) = test.place(row), test.place(other)
            raise DataError(
                f"{file}:{line}: the id {name!r} is also used at {other_file}:{other_line} for "
                "another case. Give each case its own id, or none."
            )
        first = kept.setdefault(content, row)
        if first.example.case_id != name:
            copies[name] = first.example.case_id
        if row.example.required and not first.example.required:
            required = first.example.model_copy(update={"required": True})
            kept[content] = replace(first, example=required)
    return replace(test, rows=tuple(kept.values())), copies


def _refuse_trained(test: Dataset, trained: Iterable[Dataset]) -> None:
    """Raise Leak if a run was trained on cases of a test split cut from the training file.

    Another cut was used when it was launched. Dropping the cases would hide that they were learned.
    """
    learned = {example.input_key for rows in trained for example in rows}
    if shared := [row for row in test.rows if row.example.input_key in learned]:
        raise Leak(
            f"{len(shared)} of {len(test)} test cases are in the rows that the run was trained "
            f"on, such as {test.name}:{shared[0].line}. When it was launched, data.test was "
            "another share, or the file was different. Restore data.test, or train again: unitune "
            "run FILE"
        )


def _leaks(resolved: ResolvedJob, trained: Sequence[Dataset], test: Dataset) -> LeakResult:
    """Refuse or list the test cases that occur in rows used to build contenders."""
    action, lines = resolved.job.evaluate.leaks, {row.line for row in test.rows}
    known = {leak.line: leak for leak in leaks(trained, test)}
    known |= {leak.line: leak for leak in resolved.leaks if leak.line in lines}
    cases = tuple(known[line] for line in sorted(known))
    if action == "refuse":
        refuse(cases, test)
    searched = any(map(len, (resolved.splits.train, *trained)))
    return LeakResult(action=action, searched=searched, cases=cases)


def without_leaks(
    job: Job, leaking: Iterable[SharedCase], test: Dataset, copies: Mapping[str, str]
) -> tuple[Example, ...]:
    """Return the cases without leaks, if the job drops them. Raises Leak if one is required."""
    if job.evaluate.leaks != "drop":
        return tuple(test)
    gate, dropped = job.evaluate.gate, {shared.case for shared in leaking}
    required = {copies.get(name, name) for name in (gate.required_cases if gate else ())}
    for row in test.rows:
        name = row.example.case_id
        if name in dropped and (row.example.required or name in required):
            file, line = test.place(row)
            raise Leak(
                f"{file}:{line}: the case {name} is required but also occurs in training or "
                "validation rows. Dropping it would drop the check. Remove the row from training, "
                "or require another case."
            )
    kept = tuple(example for example in test if example.case_id not in dropped)
    if not kept:
        raise Leak(
            f"all {len(test)} test cases also occur in training or validation rows, so none is "
            "left. Set data.test to rows that were not trained on."
        )
    return kept


def _notes(job: Job, test: Dataset, copies: int, heads: Sequence[int]) -> Iterator[str]:
    if isinstance(share := job.data.test, float):
        groups = f" and equal {job.evaluate.clusters}" if job.evaluate.clusters else ""
        yield (
            f"The {len(test):,} test cases were cut from {test.name} (data.test: {share:g}) before "
            f"anything was trained; rows of equal input{groups} stayed on one side."
        )
    if copies:
        what = "1 test row is a copy" if copies == 1 else f"{copies} test rows are copies"
        yield f"{what} of another row, left out because a copy is not additional evidence."
    if alike := near_copies(heads):
        yield alike


def near_copies(heads: Sequence[int]) -> str | None:
    """Return a sentence on the number of families of cases, or None if all differ."""
    asked = len(set(heads))
    if asked == len(heads):
        return None
    questions = "1 question" if asked == 1 else f"{asked:,} different questions"
    return (
        f"The {len(heads):,} test cases ask {questions}. Cases with the same or nearly the same "
        "question form one cluster and count as one piece of evidence together."
    )


def clusters_of(
    cases: Sequence[Example], heads: Sequence[int], key: str | None
) -> list[str] | None:
    """Return the cluster of each case, by family and by the value of a key, or None without any."""
    named = named_clusters(cases, key)
    groups, first = Groups(len(cases)), dict[str, int]()
    for at, head in enumerate(heads):
        groups.join(at, head)
        if named:
            groups.join(at, first.setdefault(named[at], at))
    if not named and len(set(groups.heads)) == len(cases):
        return None
    return [named[head] if named else cases[head].case_id for head in groups.heads]


def named_clusters(cases: Sequence[Example], key: str | None) -> list[str]:
    """Return each case's value of a key, or nothing. Raises JobError if a case lacks it."""
    if key is None:
        return []
    labels: list[str] = []
    for case in cases:
        if (value := (case.model_extra or {}).get(key)) is None:
            known = ", ".join(sorted(case.model_extra or {})) or "none"
            raise JobError(
                f"evaluate.clusters is {key!r}, but test case {case.case_id} has no such key "
                f"(its own keys: {known}). Give every row one, or leave evaluate.clusters out."
            )
        labels.append(_label(value))
    return labels


def slices_of(cases: Sequence[Example], keys: Iterable[str]) -> list[Slice]:
    """Return the slices with enough cases, by key and value. Raises JobError for an unused key."""
    slices: list[Slice] = []
    for key in keys:
        members: dict[str, list[int]] = {}
        for position, case in enumerate(cases):
            if (value := (case.model_extra or {}).get(key)) is not None:
                members.setdefault(_label(value), []).append(position)
        if not members:
            raise JobError(
                f"evaluate.slices names {key!r}, but no test case has this key. Add it to the "
                "rows of data.test, or remove it."
            )
        slices += [
            Slice(value if key == SOURCE else f"{key} = {value}", tuple(positions))
            for value, positions in sorted(members.items())
            if len(positions) >= SMALLEST_SLICE
        ]
    return slices


def _label(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
