"""A test of promptfoo as a row's `scorers`: `row_scorers_of`.

promptfoo passes a test when all of its own assertions hold or, with a threshold, when their
weighted mean reaches it; so does a row's list. What has no counterpart is a finding, test by test.
Where all rows have one entry that differs in the expected text alone, `hoisted` makes the entry the
job's scorer and the text the row's expected answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

from pydantic import JsonValue

from unitune.findings import Finding, clip, error
from unitune.importers.promptfoo.assertions import Entry, NoCounterpart, Translator
from unitune.importers.promptfoo.rows import Row
from unitune.importers.promptfoo.suite_files import SuiteFiles
from unitune.scorers import ENTRIES
from unitune.scorers.interface import Scorer

WRITE_ANEW = "Score it by a scorer of unitune's in the row, or leave it out with --drop."
LEAVE_OUT = "Give it an assertion, or leave it out with --drop."


@dataclass(frozen=True, slots=True)
class Test:
    """A test of promptfoo.

    Args:
        row: The first of those about it, one for each provider and prompt.
        rendered: Values of its assertions as promptfoo filled them in, by their templates.
        depends: Whether its prompt may hold answers to other tests.
        file: The results file, for findings.
    """

    row: Row
    rendered: Mapping[str, str]
    depends: bool
    file: str

    def problem(self, code: str, what: str, fix: str) -> Finding:
        """Return a finding about it."""
        return error(code, f"{self.row.case}: {what}", fix).at(file=self.file)


@dataclass(frozen=True, slots=True)
class RowScorersOf:
    """What a test asserts.

    Args:
        scorers: For the row; None where nothing came over.
        findings: What did not come over.
    """

    scorers: list[JsonValue] | Entry | None
    findings: tuple[Finding, ...]

    @property
    def entry(self) -> Entry | None:
        """The only entry, where there is no other."""
        if isinstance(self.scorers, list) and len(self.scorers) == 1:
            only = self.scorers[0]
            return only if isinstance(only, dict) else None
        return None


def row_scorers_of(test: Test, files: SuiteFiles, *, answered: bool = False) -> RowScorersOf:
    """Return what a test asserts.

    Args:
        test: As promptfoo has it.
        files: Files of the suite.
        answered: Whether it was run, so that its answers are recorded.
    """
    entries: list[JsonValue] = []
    lost: list[_Lost] = []
    threshold = test.row.test_case.threshold
    for item in _entries(test, files, answered=answered):
        lost.append(item) if isinstance(item, _Lost) else entries.append(item)
    # A mean over some of its assertions would be another test.
    whole = bool(entries) and not (lost and threshold)
    rest = "; its other assertions come along" if whole else "; the test is left out"
    findings = [test.problem(each.code, f"{each.what}{rest}.", each.fix) for each in lost]
    if not whole:
        return RowScorersOf(None, tuple(findings))
    scorers: list[JsonValue] | Entry = entries
    if threshold:
        scorers = {"scorers": entries, "at_least": threshold}
    return RowScorersOf(scorers, tuple(findings))


class _Lost(NamedTuple):
    code: str
    what: str
    fix: str = WRITE_ANEW


def _entries(test: Test, files: SuiteFiles, *, answered: bool) -> Iterator[Entry | _Lost]:
    given, options = test.row.test_case, test.row.test_case.options or {}
    if test.depends and not answered:
        yield _Lost("depends", "its prompt may hold answers to other tests")
        return
    if given.scored_by is not None:
        yield _Lost("code", "a function of its own makes its score")
        return
    if isinstance(given.threshold, str | list | dict):
        yield _Lost("threshold", f"its threshold {clip(given.threshold)} is no number")
        return
    counted = [each for each in given.assertions if not weightless(each)]
    if not counted:
        yield _Lost("no-assertion", "it has no assertion to score by", LEAVE_OUT)
    if options.get("transform") or options.get("postprocess"):
        yield _Lost("code", "its `transform` changes the answers by code")
        return
    translator = Translator(test.rendered, given.variables, files)
    for assertion in counted:
        try:
            entry = translator.entry(assertion)
        except NoCounterpart as refusal:
            yield _Lost("no-counterpart", f"the assertion {refusal}")
            continue
        if answered and (beside := types_of(entry) & {"latency", "cost", "finish_reason"}):
            named = min(beside).replace("_", " ")
            yield _Lost(
                "measure", f"it asserts the {named}, which stands beside no recorded answer"
            )
        else:
            yield entry


def weightless(assertion: JsonValue) -> TypeGuard[Entry]:
    """Whether an assertion decides nothing."""
    return isinstance(assertion, dict) and assertion.get("weight") == 0


def types_of(written: JsonValue) -> set[str]:
    """Return the types of the entries in a row's scorers, at any depth."""
    if isinstance(written, list):
        return set[str]().union(*map(types_of, written))
    if not isinstance(written, dict):
        return set()
    return types_of(written.get("scorers")) | {str(written.get("type"))}


def hoisted(rows: Sequence[RowScorersOf]) -> Scorer | None:
    """Return the scorer that all rows share but for the expected text; None where they do not."""
    kinds: list[Entry] = []
    for row in rows:
        entry = row.entry
        if entry is None or not isinstance(entry.get("expected"), str):
            return None
        kinds.append({key: value for key, value in entry.items() if key != "expected"})
    if not kinds or any(kind != kinds[0] for kind in kinds):
        return None
    scorer = ENTRIES.get(str(kinds[0]["type"]))
    if scorer is None or not issubclass(scorer, Scorer):
        return None
    return scorer.model_validate(kinds[0]) if kinds[0].keys() <= {*scorer.model_fields} else None
