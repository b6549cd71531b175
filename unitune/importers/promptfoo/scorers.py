"""From assertions that differ from test to test to scorers that all cases share.

promptfoo passes a test when all of its own assertions hold; unitune scores every case by the same
scorers, each with the case's own expected answer. So the scorers are those that most tests have.
A test that lacks one of them does not come along, nor does an assertion that only some tests have;
each is a finding.
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


@dataclass(frozen=True, slots=True)
class Test:
    """A test of promptfoo with its variables in place.

    Args:
        number: From 1, as the case will be called: ``test-1``.
        values: Its variables.
        assertions: As promptfoo has them, the defaults among them.
        options: Its own and the default ones.
        threshold: Share of its assertions that must hold; None: all.
        description: For people.
        file: Where it stands.
        line: Likewise, where that is known.
    """

    number: int
    values: Mapping[str, JsonValue]
    assertions: list[JsonValue]
    options: Mapping[str, JsonValue]
    threshold: JsonValue = None
    description: str | None = None
    file: str = ""
    line: int | None = None

    @property
    def case(self) -> str:
        """The id of the case that it becomes."""
        return f"test-{self.number}"

    def problem(self, code: str, what: str, fix: str) -> Finding:
        """Return a finding about it."""
        return error(code, f"{self.case}: {what}", fix).at(file=self.file, line=self.line)


@dataclass(frozen=True, slots=True)
class Shared:
    """Scorers for all cases.

    Args:
        scorers: In the order of the first test that has them all; none when no test has any.
        expected: The expected answer of each test that comes along, by its number.
        findings: What does not.
    """

    scorers: tuple[Scorer, ...]
    expected: Mapping[int, str | None]
    findings: tuple[Finding, ...]


MOST_SHAPES = 50
"""Sets of scorers that are tried: enough for any suite that has scorers in common at all."""
WRITE_ANEW = "Score it by a scorer of unitune's in the job, or leave it out with --drop."
LEAVE_OUT = "Import such tests by themselves into another folder, or leave them out with --drop."


def share(tests: Sequence[Test]) -> Shared:
    """Find the scorers that most tests have, and what each test expects.

    Args:
        tests: All of them.
    """
    found = [list(_checks(test)) for test in tests]
    findings = [one for items in found for one in items if isinstance(one, Finding)]
    checked = [[one for one in items if isinstance(one, Check)] for items in found]
    scorers = _most_common(checked)
    expected: dict[int, str | None] = {}
    for test, checks in zip(tests, checked, strict=True):
        verdict = _expected(test, checks, scorers)
        findings.extend(verdict.findings)
        if verdict.comes_along:
            expected[test.number] = verdict.expected
    return Shared(scorers, expected, tuple(findings))


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
            check = translate(assertion, test.values)
        except NoCounterpart as refusal:
            yield test.problem("no-counterpart", f"the assertion {refusal}.", WRITE_ANEW)
        else:
            if check is not None:
                yield check


def _most_common(checked: Sequence[Sequence[Check]]) -> tuple[Scorer, ...]:
    """Return the scorers that most tests have; of equally common sets the largest."""
    known = {_key(check.scorer): check.scorer for checks in checked for check in checks}
    shapes = Counter(frozenset(_key(check.scorer) for check in checks) for checks in checked)
    del shapes[frozenset()]
    if not shapes:
        return ()
    tried = [shape for shape, _ in shapes.most_common(MOST_SHAPES)]
    best = max(
        tried,
        key=lambda wanted: (
            sum(count for shape, count in shapes.items() if wanted <= shape),
            len(wanted),
        ),
    )
    return _named([scorer for key, scorer in known.items() if key in best])


def _key(scorer: Scorer) -> str:
    return scorer.model_dump_json()


def _named(scorers: Sequence[Scorer]) -> tuple[Scorer, ...]:
    """Return scorers with names that differ."""
    types = [scorer.type_name() for scorer in scorers]
    return tuple(
        scorer.model_copy(update={"name": f"{types[at]}_{types[: at + 1].count(types[at])}"})
        if types.count(types[at]) > 1
        else scorer
        for at, scorer in enumerate(scorers)
    )


@dataclass(frozen=True, slots=True)
class _Verdict:
    comes_along: bool
    expected: str | None = None
    findings: tuple[Finding, ...] = ()


def _expected(test: Test, checks: Sequence[Check], scorers: Sequence[Scorer]) -> _Verdict:
    """Return what a test expects under the shared scorers."""
    if not checks:  # told already
        return _Verdict(comes_along=False)
    wanted = [scorer.model_copy(update={"name": scorer.type_name()}) for scorer in scorers]
    if missing := [one for one in wanted if one not in [check.scorer for check in checks]]:
        what = f"most tests are scored by {_list(wanted)}, and it has no {_list(missing)}."
        return _Verdict(False, None, (test.problem("other-scorers", what, LEAVE_OUT),))
    extra = [check.scorer for check in checks if check.scorer not in wanted]
    findings = (
        (test.problem("only-here", f"few tests are scored by {_list(extra)}.", WRITE_ANEW),)
        if extra
        else ()
    )
    texts = dict.fromkeys(
        check.expected for check in checks if check.scorer in wanted and check.expected is not None
    )
    if len(texts) > 1:
        listed = " and ".join(clip(text) for text in texts)
        what = f"its assertions expect {listed}, and a case has one expected answer."
        return _Verdict(False, None, (test.problem("two-expected", what, LEAVE_OUT),))
    return _Verdict(True, next(iter(texts), None), findings)


def _list(scorers: Sequence[Scorer]) -> str:
    told = dict.fromkeys(
        f"regex {clip(scorer.pattern)}" if isinstance(scorer, Regex) else scorer.type_name()
        for scorer in scorers
    )
    return " and ".join(told)
