"""From assertions that differ from test to test to scorers that all cases share.

promptfoo passes a test when all of its own assertions hold; unitune scores every case by the same
scorers, each with the case's own expected answer. So the scorers are those that most tests have.
A test that lacks any of them is left out, and so is an assertion that only some tests have; each is
a finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from unitune.findings import Finding, clip, error
from unitune.importers.promptfoo.assertions import Check, NoCounterpart, flat, translate
from unitune.scorers.interface import Scorer
from unitune.scorers.text import Regex

MOST_SHAPES = 50
"""Sets of scorers that are tried: enough for any suite that has scorers in common at all."""
WRITE_ANEW = "Score it by a scorer of unitune's in the job, or leave it out with --drop."
LEAVE_OUT = "Import such tests by themselves into another folder, or leave them out with --drop."


@dataclass(frozen=True, slots=True)
class Test:
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

    def problem(self, code: str, what: str, fix: str) -> Finding:
        """Return a finding about it."""
        return error(code, f"{self.case}: {what}", fix).at(file=self.file)


@dataclass(frozen=True, slots=True)
class SharedScorers:
    """Scorers for all cases.

    Args:
        scorers: In the order in which tests have them; none when no test has any.
        expected: The expected answer of each test that they can score, by its case.
        findings: About tests and assertions that they leave out.
    """

    scorers: tuple[Scorer, ...]
    expected: Mapping[str, str | None]
    findings: tuple[Finding, ...]


def share_scorers(tests: Sequence[Test]) -> SharedScorers:
    """Return the scorers that most tests have, and what each test expects."""
    translated = [(test, list(_checks(test))) for test in tests]
    findings = [item for _, items in translated for item in items if isinstance(item, Finding)]
    checks = {
        test.case: [item for item in items if isinstance(item, Check)] for test, items in translated
    }
    scorers = _most_common(list(checks.values()))
    expected: dict[str, str | None] = {}
    for test in tests:
        if not checks[test.case]:
            continue  # its findings say why
        problem = _misfit(test, checks[test.case], scorers)
        findings.extend([problem] if problem else [])
        if problem is None or problem.code == "only-here":
            expected[test.case] = next(iter(_expected(checks[test.case], scorers)), None)
    return SharedScorers(_with_unique_names(scorers), expected, tuple(findings))


def _checks(test: Test) -> Iterator[Check | Finding]:
    if code := next((key for key in ("transform", "postprocess") if test.options.get(key)), None):
        yield test.problem("code", f"`{code}` changes its answer by code.", WRITE_ANEW)
        return
    if test.threshold is not None:
        what = f"it passes at a threshold of {test.threshold} over its assertions."
        yield test.problem("threshold", what, WRITE_ANEW)
        return
    try:
        assertions = list(flat(test.assertions))
    except NoCounterpart as refusal:
        yield test.problem("no-counterpart", f"{refusal}.", WRITE_ANEW)
        return
    if not assertions:
        yield test.problem("no-assertion", "it has no assertion to score by.", LEAVE_OUT)
    for assertion in assertions:
        try:
            check = translate(assertion, test.rendered)
        except NoCounterpart as refusal:
            yield test.problem("no-counterpart", f"the assertion {refusal}.", WRITE_ANEW)
        else:
            yield from [check] if check else []


def _most_common(checked: Sequence[Sequence[Check]]) -> tuple[Scorer, ...]:
    """Return the scorers that most tests have; of equally common sets the largest."""
    known = {check.scorer.model_dump_json(): check.scorer for some in checked for check in some}
    shapes = Counter(
        frozenset(check.scorer.model_dump_json() for check in checks) for checks in checked
    )
    del shapes[frozenset()]

    def tests_and_size(scorers: frozenset[str]) -> tuple[int, int]:
        return sum(n for shape, n in shapes.items() if scorers <= shape), len(scorers)

    tried = [shape for shape, _ in shapes.most_common(MOST_SHAPES)]
    best = max(tried, key=tests_and_size, default=frozenset[str]())
    return tuple(scorer for key, scorer in known.items() if key in best)


def _misfit(test: Test, checks: Sequence[Check], scorers: Sequence[Scorer]) -> Finding | None:
    """Return what the shared scorers leave out of a test, if there is anything."""
    present = [check.scorer for check in checks]
    if missing := [scorer for scorer in scorers if scorer not in present]:
        what = f"most tests are scored by {_names(scorers)}, and it has no {_names(missing)}."
        return test.problem("other-scorers", what, LEAVE_OUT)
    if len(texts := _expected(checks, scorers)) > 1:
        listed = " and ".join(clip(text) for text in texts)
        what = f"its assertions expect {listed}, and a case has one expected answer."
        return test.problem("two-expected", what, LEAVE_OUT)
    if extra := [scorer for scorer in present if scorer not in scorers]:
        what = f"few tests are scored by {_names(extra)}."
        return test.problem("only-here", what, WRITE_ANEW)
    return None


def _expected(checks: Sequence[Check], scorers: Sequence[Scorer]) -> dict[str, None]:
    """Return the different expected answers under some scorers, in order."""
    return {
        check.expected: None
        for check in checks
        if check.scorer in scorers and check.expected is not None
    }


def _with_unique_names(scorers: Sequence[Scorer]) -> tuple[Scorer, ...]:
    types = [scorer.type_name() for scorer in scorers]
    return tuple(
        scorer.model_copy(update={"name": f"{kind}_{types[: at + 1].count(kind)}"})
        if types.count(kind) > 1
        else scorer
        for at, (scorer, kind) in enumerate(zip(scorers, types, strict=True))
    )


def _names(scorers: Sequence[Scorer]) -> str:
    names = dict.fromkeys(
        f"regex {clip(scorer.pattern)}" if isinstance(scorer, Regex) else scorer.type_name()
        for scorer in scorers
    )
    return " and ".join(names)
