"""A decision for readers: the answer with its reasons, the evidence, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unitune.cost.spread import cents
from unitune.decision.evidence import Answer, Decision, Evidence, Score, TuningOption
from unitune.evaluate.statistics.sample_size import LIKELY_DISCORDANCE, smallest_detectable
from unitune.report.facts import Fact
from unitune.report.html import page, resource
from unitune.report.learning_curve import facts as curve_facts
from unitune.report.terminal import bullet, file_lines, plain
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
    """Return what is known of the job, wherever it is tuned."""
    visible = (
        smallest_detectable(max(1, evidence.test_cases), share, graded=evidence.graded)
        for share in LIKELY_DISCORDANCE
    )
    smallest = " to ".join(dict.fromkeys(decimal(100 * each) for each in visible))
    return (
        Fact("Training", f"{evidence.training_rows:,} rows"),
        Fact("Validation", f"{evidence.validation_rows:,} rows", "every score is of these"),
        Fact(
            "Test",
            f"{evidence.test_cases:,} cases",
            f"finds differences from {smallest} points on (80 % power); "
            f"{decimal(100 * evidence.margin)} matter",
        ),
    )


def option_facts(option: TuningOption) -> Iterator[Fact]:
    """Yield what is known of tuning at one backend, in the order of what it takes to know."""
    yield Fact("Base", option.base_model, _life(option))
    if (cost := option.cost) is not None:
        prompted, tuned = option.totals
        volume = f"{cost.requests_month:,} requests a month, {cost.horizon.months:.3g} months"
        other = f"prompted {usd_range(prompted)}; {volume}"
        unknown = f"unitune cost names the missing price; {volume}"
        usd = f"${cents(tuned.expected):,}" if tuned else "unknown"
        yield Fact("Total cost", usd, other if tuned else unknown)
    for prompt in option.prompts:
        yield Fact("Prompt", percent(prompt.value), f"{_range(prompt)}; {prompt.name}")
    if option.tuned and option.gain:
        gain = points(option.gain.value, sign=True)
        ends = interval((option.gain.low, option.gain.high))
        meaning = f"{_range(option.tuned)}; {gain} ({ends}) beyond the best prompt"
        yield Fact("Tuned", percent(option.tuned.value), meaning)
    if option.curve:
        yield from curve_facts(option.curve)


def _life(option: TuningOption) -> str:
    if option.refusals:
        return " ".join(option.refusals)
    if option.ends is None:
        return "no retirement date"
    return f"switched off on {option.ends}, in {option.months_left:.1f} months"


def _range(score: Score) -> str:
    return interval((score.low, score.high))


def decision_view(decision: Decision, file: Path) -> Group:
    """Return a decision for a terminal."""
    conclusion, evidence, step = decision.conclusion, decision.evidence, decision.conclusion.next
    why = plain(f"  {step.why}", "dim") if step.command else plain(step.why)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(max_width=24, overflow="fold")
    table.add_column(overflow="fold")
    _add(table, facts(evidence))
    for option in evidence.options:
        table.add_row()
        table.add_row(plain(f"on {option.backend}", "bold"))
        _add(table, option_facts(option))
    return Group(
        Text.assemble((evidence.job, "bold"), f": tune or prompt? Scored by `{evidence.metric}`."),
        Text(),
        plain(f"{conclusion.headline}.", STYLES[conclusion.answer]),
        *map(_item, conclusion.reasons),
        Text(),
        table,
        Text(),
        *_listed("What would change this", conclusion.changes),
        *_listed("Not measured", decision.notes),
        Text.assemble(("Next: ", "bold"), plain(step.command), why),
        *file_lines([file]),
    )


def _add(table: Table, rows: Iterable[Fact]) -> None:
    for fact in rows:
        table.add_row(plain(fact.term), plain(fact.value), plain(fact.meaning))


def _listed(heading: str, sentences: tuple[str, ...]) -> Iterator[Text | Padding]:
    if sentences:
        yield plain(heading, "bold")
        yield from map(_item, sentences)
        yield Text()


def _item(sentence: str) -> Padding:
    return Padding(bullet("•", sentence), (0, 0, 0, 2), expand=False)


def render(decision: Decision) -> str:
    """Return a decision as one HTML page that needs no other file and no network."""
    return page(
        "decision.html.j2",
        resource("style.css"),
        decision=decision,
        conclusion=decision.conclusion,
        evidence=decision.evidence,
        facts=facts(decision.evidence),
        options=[(option.backend, option_facts(option)) for option in decision.evidence.options],
    )


def write_page(decision: Decision) -> Path:
    """Write the page beside the recorded answers, and return its path."""
    path = decision.folder / PAGE
    with replacing(path) as file:
        file.write(render(decision))
    return path
