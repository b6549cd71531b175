"""Describe a decision: the answer with its reasons, the evidence, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unitune.cost.spread import cents
from unitune.curve.page import facts as curve_facts
from unitune.decision.evidence import Decision, Evidence, Score, TuningOption
from unitune.evaluate.statistics.sample_size import LIKELY_DISCORDANCE, smallest_detectable
from unitune.files.filesystem import replacing
from unitune.render.html import render
from unitune.render.sections import Bullets, Cell, Document, Fact, Facts, Section
from unitune.render.typography import decimal, interval, moment, percent, points, usd_range

PAGE = "decision.html"


def describe(decision: Decision) -> Document:
    """Return the document of a decision."""
    conclusion, evidence, step = decision.conclusion, decision.evidence, decision.conclusion.next
    about = (
        f"Scores are {evidence.metric} on the validation rows, with {percent(decision.level)} "
        "intervals. The test rows had no part in them."
    ).replace(".0 %", " %")
    lists = (("What would change this", conclusion.changes), ("Not measured", decision.notes))
    return Document(
        title=conclusion.headline,
        about=(evidence.job, "tune or prompt?", moment(decision.created)),
        tone="good" if conclusion.answer in ("tune", "prompt") else "doubtful",
        text=" ".join(conclusion.reasons),
        state=Cell("Next", ": ".join(filter(None, [step.command, step.why])), strong=True),
        sections=(
            Section("The evidence", [about, Facts(facts(evidence), "figures")]),
            *(
                Section(f"On {option.backend}", [Facts([*option_facts(option)], "figures")])
                for option in evidence.options
            ),
            *(Section(title, [Bullets(sentences)]) for title, sentences in lists if sentences),
        ),
    )


def facts(evidence: Evidence) -> tuple[Fact, ...]:
    """Return the facts of the job that do not depend on a backend."""
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
    """Yield the facts of tuning at one backend, in the order of the effort to learn them."""
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


def write_page(decision: Decision) -> Path:
    """Write the page next to the recorded answers, and return its path."""
    path = decision.folder / PAGE
    with replacing(path) as file:
        file.write(render(describe(decision)))
    return path
