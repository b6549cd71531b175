"""From assertions that differ from test to test to scorers that all cases share.

promptfoo passes a test when all of its own assertions hold; unitune scores every case by the same
scorers, each with the case's own expected answer. So the scorers are those that most tests have,
and a test with other ones is left out; each is a finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import JsonValue

from unitune.findings import Finding, clip, error
from unitune.importers.promptfoo.assertions import Check, NoCounterpart, flat, translate
from unitune.scorers.interface import Scorer

FIX = (
    "Import such tests by themselves into another folder, score them by a scorer of unitune's in "
    "the job, or leave them out with --drop."
)
Checks: TypeAlias = Mapping[str, Check]
"""The checks of a test, each by its scorer as JSON."""


@dataclass(frozen=True, slots=True)
class AssertedTest:
    """A test of promptfoo.

    Args:
        case: The id of the case that it becomes: ``test-1``.
        assertions: As promptfoo has them, the defaults among them.
        rendered: Values of its assertions as promptfoo filled them in, by their templates.
        options: Its own and the default ones.
        threshold: Share of its assertions that must hold; None: all.
        file: The results file, for findings.
    """

    case: str
    assertions: list[JsonValue]
    rendered: Mapping[str, str]
    options: Mapping[str, JsonValue]
    threshold: JsonValue
    file: str

    def problem(self, code: str, what: str) -> Finding:
        """Return a finding about it."""
        return error(code, f"{self.case}: {what}", FIX).at(file=self.file)


@dataclass(frozen=True, slots=True)
class SharedScorers:
    """Scorers for all cases.

    Args:
        scorers: In the order in which tests have them; none when no test has any.
        expected: The expected answer of each test that they can score, by its case.
        findings: About the other tests.
    """

    scorers: tuple[Scorer, ...]
    expected: Mapping[str, str | None]
    findings: tuple[Finding, ...]


def share_scorers(tests: Sequence[AssertedTest]) -> SharedScorers:
    """Return the scorers that most tests have, and what each test expects."""
    findings: list[Finding] = []
    translated: list[tuple[AssertedTest, Checks]] = []
    for test in tests:
        try:
            translated.append((test, _checks(test)))
        except NoCounterpart as refusal:
            findings.append(test.problem("no-counterpart", f"{refusal}."))
    counts = Counter(frozenset(checks) for _, checks in translated)
    shape = max(counts, key=lambda keys: counts[keys], default=frozenset[str]())
    scorers: tuple[Scorer, ...] = ()
    expected: dict[str, str | None] = {}
    for test, checks in translated:
        if frozenset(checks) == shape:
            scorers = scorers or tuple(check.scorer for check in checks.values())
            answers = (check.expected for check in checks.values() if check.expected is not None)
            expected[test.case] = next(answers, None)
        else:
            names = " and ".join(check.scorer.type_name() for check in checks.values())
            what = f"most tests are scored otherwise than by {names}."
            findings.append(test.problem("other-scorers", what))
    return SharedScorers(_with_unique_names(scorers), expected, tuple(findings))


def _checks(test: AssertedTest) -> Checks:
    if code := next((key for key in ("transform", "postprocess") if test.options.get(key)), None):
        raise NoCounterpart(f"`{code}` changes its answer by code")
    if test.threshold is not None:
        raise NoCounterpart(f"it passes at a threshold of {test.threshold} over its assertions")
    checks = [translate(assertion, test.rendered) for assertion in flat(test.assertions)]
    if not any(checks):
        raise NoCounterpart("it has no assertion to score by")
    texts = {check.expected: None for check in checks if check and check.expected is not None}
    if len(texts) > 1:
        listed = " and ".join(map(clip, texts))
        raise NoCounterpart(f"its assertions expect {listed}, and a case has one expected answer")
    return {check.scorer.model_dump_json(): check for check in checks if check}


def _with_unique_names(scorers: Sequence[Scorer]) -> tuple[Scorer, ...]:
    types = [scorer.type_name() for scorer in scorers]
    return tuple(
        scorer.model_copy(update={"name": f"{kind}_{types[: at + 1].count(kind)}"})
        if types.count(kind) > 1
        else scorer
        for at, (scorer, kind) in enumerate(zip(scorers, types, strict=True))
    )
