"""A decision for readers: the answer with its reasons, the evidence, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unitune.decision.evidence import Answer, Decision, Evidence, Score, TuningOption
from unitune.evaluate.statistics.sample_size import LIKELY_DISCORDANCE, smallest_detectable
from unitune.report.facts import Fact
from unitune.report.html import environment, policy, resource
from unitune.report.learning_curve import headline as curve_headline
from unitune.report.terminal import file_lines, plain
from unitune.report.typography import decimal, interval, percent, points, usd_range
from unitune.workspace.filesystem import replacing

PAGE = "decision.html"
STYLES: dict[Answer, str] = {
    "tune": "bold green",
    "prompt": "bold green",
    "collect": "bold yellow",
    "cannot tell": "bold yellow",
}


def facts(evidence: Evidence) -> tuple[Fact, ...]:
    """Return what was looked at, in the order of its cost, each with what it means."""
    return tuple(_facts(evidence))


def _facts(evidence: Evidence) -> Iterator[Fact]:
    yield Fact("Training", f"{evidence.training_rows:,} rows")
    yield Fact("Validation", f"{evidence.validation_rows:,} rows", "which all scores are of")
    if evidence.test_cases and not evidence.errors:
        yield _test(evidence)
    for option in evidence.options:
        where = f"{option.base_model} on {option.backend}"
        yield Fact("Base", where, _life(option))
        for prompt in option.prompts:
            yield Fact("Prompt", _score(prompt), prompt.name)
        if option.tuned and option.gain:
            gain = f"{points(option.gain.value, sign=True)} beyond the best prompt"
            ends = interval((option.gain.low, option.gain.high))
            yield Fact("Tuned", _score(option.tuned), f"{gain} ({ends})")
        if option.curve:
            yield Fact("More rows", curve_headline(option.curve))
        yield from _cost(option)


def _test(evidence: Evidence) -> Fact:
    """Return what the test could show, for how much two good models usually differ."""
    low, high = (
        smallest_detectable(evidence.test_cases, share, graded=evidence.graded)
        for share in LIKELY_DISCORDANCE
    )
    found = (
        f"differences of {decimal(100 * low)} to {decimal(100 * high)} points and more are found"
    )
    cases = f"{evidence.test_cases:,} test cases"
    return Fact("Test", cases, f"{found} (80 % power); {decimal(100 * evidence.margin)} matter")


def _life(option: TuningOption) -> str:
    if option.refusals:
        return " ".join(option.refusals)
    if option.ends is None:
        return "no end is announced"
    return f"switched off on {option.ends}, in {option.months_left:.1f} months"


def _cost(option: TuningOption) -> Iterator[Fact]:
    for column in option.cost.columns if option.cost else ():
        if column.role == "newest":
            continue
        total = usd_range(column.total_usd)
        volume = f"{option.cost.requests_month:,} requests a month" if option.cost else ""
        yield Fact(f"Cost, {column.role}", total, volume)


def _score(score: Score) -> str:
    return f"{percent(score.value)} ({interval((score.low, score.high))})"


def decision_view(decision: Decision, page: Path) -> Group:
    """Return a decision for a terminal."""
    conclusion, evidence = decision.conclusion, decision.evidence
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for fact in facts(evidence):
        table.add_row(plain(fact.term), plain(fact.value), plain(fact.meaning))
    return Group(
        Text.assemble((evidence.job, "bold"), f": tune or prompt? By {evidence.metric}."),
        Text(),
        plain(f"{conclusion.headline}.", STYLES[conclusion.answer]),
        *map(_item, conclusion.reasons),
        Text(),
        table,
        Text(),
        *_listed("What would change this", conclusion.changes),
        *_listed("Not measured", decision.notes),
        Text.assemble(("Next: ", "bold"), plain(conclusion.next.command), _why(decision)),
        *file_lines([page]),
    )


def _why(decision: Decision) -> Text:
    step = decision.conclusion.next
    return plain(f"{'  ' if step.command else ''}{step.why}", "dim" if step.command else "")


def _listed(heading: str, sentences: tuple[str, ...]) -> Iterator[Text | Padding]:
    if sentences:
        yield plain(heading, "bold")
        yield from map(_item, sentences)
        yield Text()


def _item(sentence: str) -> Padding:
    line = Table.grid(padding=(0, 1))
    line.add_column(width=1)
    line.add_column(overflow="fold")
    line.add_row("•", plain(sentence))
    return Padding(line, (0, 0, 0, 2), expand=False)


def render(decision: Decision) -> str:
    """Return a decision as one HTML page that needs no other file and no network."""
    style = resource("style.css")
    page = environment().get_template("decision.html.j2")
    return page.render(
        decision=decision,
        conclusion=decision.conclusion,
        evidence=decision.evidence,
        facts=facts(decision.evidence),
        style=Markup(style),  # noqa: S704 - our own file
        policy=policy(style),
    )


def write_page(decision: Decision) -> Path:
    """Write the page beside the recorded answers, and return its path."""
    path = decision.folder / PAGE
    with replacing(path) as file:
        file.write(render(decision))
    return path
