"""Describe a comparison: the verdict first, then the sections with its reasons.

`unitune.report.words` and `facts` write the sentences, and `charts` the charts.
`unitune.report.files` and `markdown` add the cases in their own form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from unitune.evaluate.documents.records import Contrast
from unitune.evaluate.documents.results import Comparison, ContenderResult
from unitune.render.charts import Axis
from unitune.render.sections import (
    Bullets,
    Cell,
    Column,
    Document,
    Fact,
    Facts,
    Figure,
    Folded,
    Interval,
    Part,
    Section,
    Table,
    Tone,
)
from unitune.render.typography import counted, decimal, interval, moment, p_value, per_case, points
from unitune.report import cases, charts, facts, words
from unitune.report.run_document import training_figures

MAX_CHECKS = 50  # limit for a gate, failed checks first: a job may require hundreds of cases
MAX_FAILURES, MAX_MIXUPS, SHOWN_MIXUPS = 20, 10, 5
SHOWN_CONTRASTS = 12  # maximum in a terminal
ERROR_CHARACTERS = 400
TONES: dict[str, Tone] = {
    "better": "good",
    "worse": "bad",
    "equivalent": "accent",
    "non-inferior": "accent",
    "inconclusive": "doubtful",
}
EXPLORATORY = (
    "Look here for ideas, not for proof: among many parts some differ by chance; p is adjusted for "
    "their number (Benjamini-Hochberg)."
)
CONTENDERS_NOTE = (
    "Tokens are those of the prompt + those of the answer. The cost is for all cases together; "
    "a dash means that no charge is known."
)


def describe(comparison: Comparison) -> Document:
    """Return the document of a comparison, without its cases."""
    run = [f"run {comparison.run}"] if comparison.run else []
    texts = words.scores(comparison), words.reason(comparison), words.tuning_cost(comparison)
    return Document(
        title=words.headline(comparison),
        about=(
            comparison.job,
            f"{comparison.base_model}, {comparison.backend}",
            *run,
            moment(comparison.created),
        ),
        figures=(_verdict(comparison), words.figures(comparison)),
        text=" ".join(filter(None, texts)),
        state=_gate(comparison),
        notes=words.caveats(comparison),
        sections=tuple(_sections(comparison)),
        tone=words.mood(comparison) or TONES[comparison.verdict],
    )


def _verdict(comparison: Comparison) -> str:
    candidate = words.contender(comparison, comparison.candidate)
    baseline = words.contender(comparison, comparison.baseline)
    difference = points(comparison.difference, sign=True)
    sides = [f"{each.name} {each.score:.3f}" for each in (candidate, baseline)]
    if words.labels(comparison):  # the scores are the judge's, and may point the other way
        sides = [candidate.name, baseline.name]
    return (
        f"{words.verdict(comparison).upper()}  {' vs '.join(sides)}: {difference} "
        f"[{interval(comparison.interval, ', ')}] ({words.level(comparison)})"
    )


def _gate(comparison: Comparison) -> Cell | None:
    if (gate := comparison.gate) is None:
        return None
    note = f"{gate.mode}, exit code {gate.exit_code}: {gate.reason}"
    if moved := words.regressions(comparison):
        note += f" {moved}"
    tone: Tone = "good" if gate.passed else "doubtful" if gate.exit_code == 3 else "bad"
    return Cell("Gate passed" if gate.passed else "Gate not passed", note, tone, strong=True)


def _sections(comparison: Comparison) -> Iterator[Section]:
    yield _difference(comparison)
    if comparison.gate and comparison.gate.checks:
        yield Section("The gate", [*_checks(comparison)], on_page=True)
    yield Section("The contenders", [*_contenders(comparison)])
    for judge in comparison.judges:
        what: list[Part] = [judge.basis, Facts(facts.judge(judge))]
        if judge.clauses:
            what.append(facts.clause_table(judge.clauses))
        title = "The judge" if judge.name == "judge" else f"The judge {judge.name}"
        yield Section(title, what, on_page=True)
    if comparison.economics:
        money = Facts(facts.economics(comparison.economics))
        yield Section("Is it worth the money?", [money], on_page=True)
    if comparison.retention:
        yield _general_ability(comparison)
    if comparison.references:
        about = f"each reference, on the cases that both answered. {words.NO_PART}"
        table = _contrasts(comparison, "Reference", comparison.references, about)
        yield Section("Against the references", [table])
    if comparison.secondary:
        yield Section("Other metrics", [*_metrics(comparison)])
    yield from facts.sections(comparison)
    if comparison.slices:
        about = f"{comparison.baseline} within parts of the test. {EXPLORATORY}"
        table = _contrasts(comparison, "Slice", comparison.slices, about)
        yield Section("Slices (exploratory)", [table])
    if trainings := list(_trainings(comparison)):
        yield Section("The training", trainings, on_page=True)
    fingerprints = [Fact(term, value) for term, value in comparison.provenance.items()]
    known = Folded("Provenance: fingerprints of models, scorers and cases", [Facts(fingerprints)])
    yield Section("How it was judged", [Facts(facts.judging(comparison)), known], on_page=True)


def _difference(comparison: Comparison) -> Section:
    candidate, baseline = comparison.candidate, comparison.baseline
    higher = "scores higher" if comparison.graded else "is right"
    parts: list[Part] = [
        Facts(facts.evidence(comparison), "leading"),
        Figure(
            charts.difference_chart(comparison),
            f"Points that {candidate} is ahead of {baseline} on the same cases, with the "
            f"{words.level(comparison)} interval. Shaded: the \u00b1{points(comparison.margin)} "
            "that do not matter for this job.",
        ),
    ]
    strip = charts.case_strip([cases.outcome(comparison, case) for case in comparison.cases])
    if strip is not None:
        each = "Every case" if strip.step == 1 else f"Every {strip.step} cases as one line"
        parts.append(
            Figure(
                strip,
                f"{each} in the order of the test: a line up where only {candidate} {higher}, a "
                f"line down where only {baseline} {'does' if comparison.graded else 'is'}, nothing "
                "where they are equal.",
            )
        )
    parts.append(Facts([*facts.judged_by(comparison)], "figures"))
    tone = words.mood(comparison)
    return Section("The difference, case by case", parts, on_page=True, tone=tone)


def _checks(comparison: Comparison) -> Iterator[Part]:
    assert comparison.gate is not None, "called only with a gate"
    checks = sorted(comparison.gate.checks, key=lambda check: check.exit_code == 0)
    yield Table(
        ["Check", Column("Result", whole=True), "Why"],
        [
            [
                Cell(text, tone="quiet" if check.exit_code == 0 else "")
                for text in (check.name, words.check(check), check.reason)
            ]
            for check in checks[:MAX_CHECKS]
        ],
        f"{counted(len(checks), 'check')}; the first of error, failed and inconclusive that any of "
        "them has decides.",
        name="checks",
    )
    if (more := len(checks) - MAX_CHECKS) > 0:
        yield f"And {more:,} more; verdict.json has them all."
    for then in comparison.gate.regressions[:1]:
        moved = (("Added since", then.added), ("No longer there", then.removed))
        if sentences := [f"{what}: {', '.join(ids)}" for what, ids in moved if ids]:
            yield Folded("Cases in the test or the baseline file alone", [Bullets(sentences)])


def _contenders(comparison: Comparison) -> Iterator[Part]:
    share = "Score, %" if comparison.graded else "Right, %"
    cut = any(result.cut for result in comparison.contenders)
    yield Table(
        [
            "Contender",
            Column("Drawn from 0 to 100 %", axis=charts.PERCENT),
            f"#{share}",
            Column("Cases", number=True, on_page=True),
            "#Errors",
            *(["#Cut\noff"] if cut else []),
            "#Tokens\na case",
            "#Seconds\na case",
            "#Cost\nUSD",
        ],
        [
            _contender(comparison, result, cut=cut)
            for result in sorted(comparison.contenders, key=lambda each: -each.score)
        ],
        words.measured(comparison),
        name="contenders",
    )
    yield CONTENDERS_NOTE
    if comparison.sweep:
        yield _sweep(comparison)
    if len(comparison.baselines) > 1:
        yield _baselines(comparison)
    names = _names(result.measures for result in comparison.contenders)
    rows = [(result.name, result.measures) for result in comparison.contenders]
    yield _figures("Further measures: mean of a case", names, rows, facts.figure)
    yield Table(
        ["Expected", "Answered", "#Cases"],
        [
            [each.expected, each.answered or Cell("no label", tone="doubtful"), f"{each.cases:,}"]
            for each in words.confusions(comparison, MAX_MIXUPS)
        ],
        f"Most frequent confusions of {comparison.candidate}",
        most=SHOWN_MIXUPS,
    )
    yield Table(
        ["Contender", "#Cases", "Error"],
        [
            [name, f"{count}", error[:ERROR_CHARACTERS]]
            for (name, error), count in _failures(comparison)
        ],
        "Answers that ended in an error",
        on_page=True,
    )


def _contender(
    comparison: Comparison, result: ContenderResult, *, cut: bool
) -> list[str | Cell | Interval]:
    tone: Tone = "accent" if result.name == comparison.candidate else ""
    compared = result.name in (comparison.candidate, comparison.baseline)
    more = ". ".join(filter(None, [words.rank(comparison, result.name), result.effort]))
    low, high = (100 * end for end in result.interval)
    tokens = (result.prompt_tokens, result.completion_tokens)
    return [
        Cell(result.name, result.role, tone, strong=compared, more=more),
        Interval(100 * result.score, low, high, tone),
        Cell(
            decimal(100 * result.score),
            interval(result.interval, "\u2013"),
            tone if result.score > 0 else "bad",
            strong=True,
        ),
        f"{result.n:,}",
        Cell(f"{result.errors:,}", tone="bad" if result.errors else ""),
        *([Cell(f"{result.cut:,}", tone="doubtful" if result.cut else "")] if cut else []),
        " + ".join(per_case(each, result.n) for each in tokens),
        per_case(result.seconds, result.n, "{:.2f}".format),
        "\u2013" if result.usd is None else f"{result.usd:,.4f}",
    ]


def _sweep(comparison: Comparison) -> Table:
    rows: list[list[str | Cell]] = []
    for run in comparison.sweep:
        score = "no model" if run.score is None else decimal(100 * run.score)
        errors = Cell(f"{run.errors:,}", tone="bad" if run.errors else "")
        name = Cell(run.name, "chosen" if run.chosen else "", strong=run.chosen)
        rows.append([name, Cell(score, strong=run.chosen), errors, run.run or "\u2013"])
    columns = ["Run of the sweep", "#On dev, %", "#Errors", "#Run"]
    return Table(columns, rows, words.swept(comparison))


def _baselines(comparison: Comparison) -> Table:
    return Table(
        ["Baseline", "#Difference", "#p", "Against it alone"],
        [
            [
                rival.name,
                Cell(_points(rival.difference), interval(rival.interval)),
                p_value(rival.p_value),
                rival.verdict,
            ]
            for rival in comparison.baselines
        ],
        f"{comparison.candidate} minus each baseline, points, with the "
        f"{words.level(comparison)} interval",
        on_page=True,
    )


def _metrics(comparison: Comparison) -> Iterator[Part]:
    yield _contrasts(
        comparison, "Metric", comparison.secondary, f"{comparison.baseline}. {words.NO_PART}"
    )
    metrics = _names(result.scores for result in comparison.contenders)
    others = [name for name in metrics if name != comparison.metric]
    rows = [(result.name, result.scores) for result in comparison.contenders]
    yield _figures("All contenders: score, %", others, rows, lambda each: decimal(100 * each))


def _figures(
    caption: str,
    names: Sequence[str],
    rows: Iterable[tuple[str, Mapping[str, float]]],
    write: Callable[[float], str],
) -> Table:
    cells = [
        [contender, *(write(known[name]) if name in known else "\u2013" for name in names)]
        for contender, known in rows
    ]
    columns = ["Contender", *(f"#{name}" for name in names)]
    return Table(columns, cells if names else (), caption, on_page=True)


def _contrasts(
    comparison: Comparison, name: str, contrasts: Sequence[Contrast], about: str
) -> Table:
    candidate = comparison.candidate
    baseline = "its score" if contrasts is comparison.references else comparison.baseline
    ends = [100 * end for each in contrasts for end in each.interval]
    rows: list[list[str | Cell | Interval]] = []
    for each in contrasts:
        low, high = (100 * end for end in each.interval)
        rows.append(
            [
                each.name,
                Interval(100 * each.difference, low, high),
                Cell(_points(each.difference), interval(each.interval), strong=True),
                f"{decimal(100 * each.baseline)}, {decimal(100 * each.candidate)}",
                f"{each.n:,}",
                p_value(each.p_value),
                p_value(each.p_adjusted),
            ]
        )
    axis = Axis.around([0.0, *ends], max_ticks=4)
    return Table(
        [
            name,
            Column("Drawn in points", on_page=True, axis=axis),
            "#Difference,\npoints",
            f"#{baseline},\n{candidate}",
            "#Cases",
            "#p",
            "#p,\nadjusted",
        ],
        rows,
        f"{candidate} minus {about}",
        most=SHOWN_CONTRASTS,
        name="differences",
    )


def _general_ability(comparison: Comparison) -> Section:
    """Return what the first lines leave out; on a page also the categories."""
    unchanged = words.tuning_cost(comparison, significant=False)
    problems = (
        f"{each.contender}: {each.problem}" for each in comparison.retention if each.problem
    )
    sentences = [*filter(None, [unchanged, *problems])]
    tables: list[Part] = []
    for each in comparison.retention:
        rows = [
            [category, f"{asked}", f"{before}", f"{after}"]
            for category, (asked, before, after) in each.categories.items()
        ]
        caption = f"General questions that {each.base_model} and {each.contender} got right"
        columns = ["Category", "#Questions", "#Before tuning", "#After"]
        about = f"{caption}. They do not count for the verdict."
        tables.append(Table(columns, rows, about, on_page=True))
    return Section("General ability", [*sentences, *tables], on_page=not sentences)


def _trainings(comparison: Comparison) -> Iterator[Part]:
    by_run = {each.run: each for each in comparison.contenders[::-1] if each.curve}
    for result in reversed(by_run.values()):
        assert result.curve is not None, "filtered above"
        of = f"{result.name}, run {result.run}. " if len(by_run) > 1 else ""
        yield from training_figures(result.curve, of)


def _failures(comparison: Comparison) -> list[tuple[tuple[str, str], int]]:
    return Counter(
        (name, answer.error)
        for case in comparison.cases
        for name, answer in case.answers.items()
        if answer.error is not None
    ).most_common(MAX_FAILURES)


def _points(difference: float) -> str:
    return points(difference, sign=True).split(" ")[0]


def _names(figures: Iterable[Mapping[str, float]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for each in figures for name in each))
