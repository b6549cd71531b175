"""Turn judgements into scores of answers, and into figures of the judge itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from statistics import fmean

from unitune.evaluate.grading import Answered
from unitune.evaluate.inference.budget import record_usd
from unitune.evaluate.judging.collecting import Judging, changed
from unitune.evaluate.records import CaseJudgement
from unitune.evaluate.results import JudgeResult
from unitune.evaluate.statistics.paired import own_score
from unitune.evaluate.task import Task
from unitune.scorers.interface import Score
from unitune.scorers.judge import Judge
from unitune.text import listed

# Words of model names that stand for a family
FAMILIES = {
    **dict.fromkeys(("gpt", "chatgpt", "davinci", "o1", "o3", "o4"), "GPT"),
    "claude": "Claude",
    **dict.fromkeys(("gemini", "gemma"), "Gemini"),
    "llama": "Llama",
    **dict.fromkeys(("qwen", "qwq"), "Qwen"),
    **dict.fromkeys(("mistral", "mixtral", "ministral", "magistral"), "Mistral"),
    "deepseek": "DeepSeek",
    "nova": "Nova",
    "phi": "Phi",
    "smollm": "SmolLM",
}
_WORDS = re.compile(r"[a-z]+(?:\d(?=\b|-))?")


def family_of(model: str) -> str:
    """Return the family of a model by its name, such as ``GPT`` for ``ft:gpt-4.1-mini:me``.

    A model of no known family is its own family.
    """
    words = [word for part in model.casefold().split("/")[::-1] for word in _WORDS.findall(part)]
    known = (FAMILIES.get(word) or FAMILIES.get(word.rstrip("0123456789")) for word in words)
    return next(filter(None, known), model)


Place = tuple[str, int, int]  # contender, position of the case, repeat


def with_judgements(
    task: Task, answered: Sequence[Answered], judgings: Sequence[Judging]
) -> tuple[Answered, ...]:
    """Return the contenders with their answers' scores by each judge."""
    judged = {each.judge.name: _scores(task, answered, each) for each in judgings}

    def scores_of(each: Answered) -> tuple[Mapping[str, Score], ...]:
        places = [(each.name, *divmod(at, task.repeats)) for at in range(len(each.records))]
        return tuple(
            {name: scores[place] for name, scores in judged.items() if place in scores}
            for place in places
        )

    return tuple(replace(each, judged=scores_of(each)) if judged else each for each in answered)


def _scores(task: Task, answered: Sequence[Answered], judging: Judging) -> dict[Place, Score]:
    """Return a judge's scores. Only the first repeat of a case is in a pair; it counts for all."""
    scores: dict[Place, Score] = {}
    for case, made in enumerate(judging.judgements(len(task.cases))):
        known = [judgement for judgement in made if judgement.value is not None]
        if not judging.judge.compare:
            for each in known:
                score = _of_answer(judging.judge, task, case, each)
                scores[each.contender, case, each.repeat] = score
            continue
        pairs = {each.contender: _of_other(each) for each in known}
        if own := _of_candidate(answered, known):
            pairs[judging.candidate] = own
        for name, score in pairs.items():
            scores |= {(name, case, repeat): score for repeat in range(task.repeats)}
    return scores


def _of_answer(judge: Judge, task: Task, case: int, judgement: CaseJudgement) -> Score:
    values = [judge.value(verdict) for verdict in judgement.verdicts]
    lowest = values.index(min(values))
    clause, why = judge.clauses(task.cases[case])[lowest], judgement.reasons[lowest]
    quoted = f"\u201c{clause}\u201d: {judgement.verdicts[lowest]}. {why}"
    reason = quoted if min(values) < 1 else why
    return Score(min(values), reason, parts=dict(zip(judge.columns, values, strict=True)))


def _of_other(judgement: CaseJudgement) -> Score:
    value = judgement.value or 0.0
    how = {1.0: "the candidate was preferred", -1.0: "preferred to the candidate"}.get(value)
    how = f"{how} in both orders" if how else "a tie, or another verdict in the other order"
    return Score((1 - value) / 2, f"{how}: {judgement.reasons[0] if judgement.reasons else ''}")


def _of_candidate(answered: Sequence[Answered], made: Sequence[CaseJudgement]) -> Score | None:
    """Return the candidate's mean score against the baselines; None if one was not judged."""
    of_baselines = {e.name for e in answered if e.choice.contender.spec.role == "baseline"}
    values = {each.contender: each.value for each in made if each.contender in of_baselines}
    known = [value for value in values.values() if value is not None]
    if len(known) < len(of_baselines):
        return None
    return Score(fmean((1 + value) / 2 for value in known), "mean over the baselines")


def result_of(
    judging: Judging,
    cases: int,
    *,
    decides: bool,
    labels: int,
    basis: str,
) -> JudgeResult:
    """Return the figures of a judge."""
    judge = judging.judge
    every = [each for of_case in judging.judgements(cases) for each in of_case]
    differ, repeated = changed(judging.repeated)
    price, usd = judging.price, None
    if price is not None:
        usd = sum((record_usd(price, each) for each in judging.records), Decimal(0))
    clauses = [each if isinstance(each, str) else f"column {each.column}" for each in judge.rubric]
    result = JudgeResult(
        name=judge.name,
        model=judging.fingerprint,
        compares=judge.compare is not None,
        criteria=(judge.compare,) if judge.compare else tuple(clauses),
        decides=decides,
        requests=len(judging.records),
        failed=sum(each.error is not None for each in every),
        repeated=repeated,
        changed=differ,
        labels=labels,
        basis=basis,
        usd=usd,
    )
    return result.model_copy(update=_position(judging, every)) if judge.compare else result


def _position(judging: Judging, every: Sequence[CaseJudgement]) -> dict[str, object]:
    """Return how a judge of pairs depends on the order of the answers."""
    whole = [each.verdicts for each in every if each.error is None]
    flips = sum(bool(one and other) and one != other for one, other in whole)
    preferred: list[float] = []
    cases: list[int] = []
    for item, opinion in judging.items:
        if opinion.error is None and (verdict := opinion.verdicts[0]) != "tie":
            preferred.append(float(verdict == "A"))
            cases.append(item.case)
    figures: dict[str, object] = {
        "pairs": len(whole),
        "flips": flips,
        "ties": sum(not all(each) for each in whole),
    }
    if preferred:
        figures["first"] = fmean(preferred)
        figures["first_interval"] = own_score(preferred, clusters=cases).ends
    return figures


def same_family(judge: Judge, models: Mapping[str, str]) -> str | None:
    """Return a warning if a judge is of the family of a contender's model (by name), else None."""
    family = family_of(judge.model)
    alike = [name for name, model in models.items() if family_of(model) == family]
    if not alike:
        return None
    return (
        f"The judge {judge.name} ({judge.model}) is of the same model family, {family}, as "
        f"{listed(alike)}. Judges prefer answers of their own family; use a judge of another one."
    )
