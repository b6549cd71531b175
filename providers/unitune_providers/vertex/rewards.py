"""Convert a job's grader to reward functions of Vertex AI's reinforcement tuning.

    string_check eq, like of sample.output_text         string match: exact, partial
    the same of sample.output_json.KEY                  of a key of the answer's JSON
    multi, whose formula is a weighted mean of these    composite reward

``{{ item.KEY }}`` becomes ``{{references.KEY}}``. A right answer earns 1 and a wrong one 0, as with
the grader; other graders are refused. Vertex AI's own reward functions (by a model, by code, by
Cloud Run) are passed unchanged with ``options.vertex.reward``.

Source: google-genai 3.6.1, types.py, ReinforcementTuningSpec and what it names; docs.cloud.google.
com/gemini-enterprise-agent-platform/models/tuning/reinforcement-tuning, reward functions and quick
start (parseResponseConfig).
"""

from __future__ import annotations

import re
from itertools import product
from math import isclose

from pydantic import JsonValue

from unitune.errors import JobError
from unitune.job.job import Job
from unitune.scorers.graders import (
    Multi,
    OpenAIGrader,
    StringCheck,
    TextSimilarity,
    compile_formula,
)
from unitune.scorers.interface import Setting

Reward = dict[str, JsonValue]

OPERATIONS = {"eq": "EXACT_MATCH", "like": "PARTIAL_MATCH"}  # Vertex AI's names by OpenAI's
MOST_GRADERS = 8  # in a formula, which is evaluated with each right and wrong
_ANSWER = re.compile(r"\{\{\s*sample\.output_(?:text|json\.(?P<key>[\w-]+))\s*\}\}")
_REFERENCE = re.compile(r"\{\{\s*item\.([\w-]+)\s*\}\}")


def reward_settings(job: Job, own: Reward | None) -> Reward:
    """Return the reward of a create call; raise `JobError` without exactly one supported reward."""
    if own is not None:
        if job.tuning.reward.scorers is not None:
            raise JobError(
                "options.vertex.reward and tuning.reward.scorers both define the reward. Remove "
                "one of them."
            )
        composite = "weightedRewardConfigs" in own
        return {"compositeRewardConfig" if composite else "singleRewardConfig": own}
    scorer = job.reward_scorer
    if not isinstance(scorer, OpenAIGrader):
        raise JobError(
            f"Vertex AI cannot compute the scorer {scorer.name!r}. Set tuning.reward.scorers: "
            "{type: grader, grader: …}, which other backends support too, or "
            "options.vertex.reward, a reward function in Vertex AI's format."
        )
    grader = scorer.load(Setting(job.folder))
    if not isinstance(grader, Multi):
        return {"singleRewardConfig": _single(grader, grader.name or scorer.name)}
    weighted: list[JsonValue] = [
        {"rewardConfig": _single(part, name), "weight": weight}
        for (name, part), weight in zip(grader.graders.items(), _weights(grader), strict=True)
    ]
    return {"compositeRewardConfig": {"weightedRewardConfigs": weighted}}


def _single(grader: StringCheck | TextSimilarity, name: str) -> Reward:
    if not isinstance(grader, StringCheck) or grader.operation not in OPERATIONS:
        what = grader.operation if isinstance(grader, StringCheck) else "text_similarity"
        raise JobError(
            f"the grader {name}: Vertex AI does not support {what}. Use string_check with eq or "
            "like, or a reward function of Vertex AI's own in options.vertex.reward."
        )
    answer, reference = _ANSWER.fullmatch(grader.input.strip()), grader.reference
    if answer is None or "{{" in _REFERENCE.sub("", reference):
        raise JobError(
            f"the grader {name}: Vertex AI checks the whole answer ({{{{ sample.output_text }}}}) "
            "or a key of its JSON ({{ sample.output_json.KEY }}) against keys of the row "
            f"({{{{ item.KEY }}}}), but this one checks {grader.input!r} against {reference!r}."
        )
    match: Reward = {
        "matchOperation": OPERATIONS[grader.operation],
        "expression": _REFERENCE.sub(r"{{references.\1}}", reference),
    }
    scorer: Reward = {"correctAnswerReward": 1.0, "wrongAnswerReward": 0.0}
    if key := answer["key"]:
        scorer["jsonMatchExpression"] = {"keyName": key, "valueStringMatchExpression": match}
    else:
        scorer["stringMatchExpression"] = match
    parsing: Reward = {"parseType": "IDENTITY"}
    return {"rewardName": name, "parseResponseConfig": parsing, "stringMatchRewardScorer": scorer}


def _weights(grader: Multi) -> list[float]:
    """Return the weights of a mean, which is compared with the formula for all combinations."""
    names = list(grader.graders)
    wrong = JobError(
        f"calculate_output is {grader.calculate_output!r}, but Vertex AI needs a weighted mean of "
        f"at most {MOST_GRADERS} graders, such as 0.7 * a + 0.3 * b, whose weights add up to 1."
    )
    if len(names) > MOST_GRADERS:
        raise wrong
    formula = compile_formula(grader.calculate_output, names)
    corners = list(product((0.0, 1.0), repeat=len(names)))
    try:
        values = [formula(dict(zip(names, corner, strict=True))) for corner in corners]
    except (ArithmeticError, ValueError):
        raise wrong from None
    weights = [value for corner, value in zip(corners, values, strict=True) if sum(corner) == 1]
    weights.reverse()  # the last name varies fastest
    means = [sum(map(float.__mul__, weights, corner)) for corner in corners]
    pairs = zip((*values, sum(weights)), (*means, 1.0), strict=True)
    if min(weights) < 0 or not all(isclose(value, mean, abs_tol=1e-9) for value, mean in pairs):
        raise wrong
    return weights
