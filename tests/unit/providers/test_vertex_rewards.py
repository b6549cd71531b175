"""A job's graders as reward functions of Vertex AI, held against the types of Google's SDK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from unitune.errors import JobError
from unitune.job.job import Data, Job
from unitune_providers.vertex.rewards import reward_settings

CHECK: dict[str, JsonValue] = {
    "type": "string_check",
    "operation": "eq",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.expected }}",
}
LABEL = {**CHECK, "name": "label", "input": "{{sample.output_json.label}}"}
ALIKE = {
    **{key: CHECK[key] for key in ("input", "reference")},
    "type": "text_similarity",
    "evaluation_metric": "gleu",
}
EITHER = {**CHECK, "name": "words", "operation": "like", "reference": "in {{item.city}}"}


def rewarded(scorer: dict[str, Any] | None, folder: Path = Path()) -> Job:
    return Job.model_validate(
        {
            "name": "job",
            "model": "gemini-3.5-flash",
            "backend": "vertex",
            "method": "rft",
            "data": Data(train="train.jsonl"),
            "tuning": {"reward": {"scorers": scorer} if scorer else {}},
            "folder": folder,
        }
    )


def grader(content: object) -> dict[str, Any]:
    return {"type": "grader", "grader": content}


def multi(formula: str, **graders: object) -> dict[str, Any]:
    return grader({"type": "multi", "graders": graders, "calculate_output": formula})


def test_a_check_is_a_string_match() -> None:
    types = pytest.importorskip("google.genai.types", reason="needs google-genai")
    spec = types.ReinforcementTuningSpec.model_validate(
        reward_settings(rewarded(grader(CHECK)), None)
    )
    scorer = spec.single_reward_config.string_match_reward_scorer
    match = scorer.string_match_expression
    assert (scorer.correct_answer_reward, scorer.wrong_answer_reward) == (1.0, 0.0)
    assert (match.match_operation, match.expression) == ("EXACT_MATCH", "{{references.expected}}")
    assert spec.single_reward_config.reward_name == "grader"


def test_a_weighted_mean_is_a_composite_reward(tmp_path: Path) -> None:
    types = pytest.importorskip("google.genai.types", reason="needs google-genai")
    mean = multi("(3 * label + words) / 4", label=LABEL, words=EITHER)
    (tmp_path / "grader.json").write_text(json.dumps(mean["grader"]))
    job = rewarded(grader("grader.json"), tmp_path)
    spec = types.ReinforcementTuningSpec.model_validate(reward_settings(job, None))
    label, words = spec.composite_reward_config.weighted_reward_configs
    assert (label.weight, words.weight) == (0.75, 0.25)
    of_json = label.reward_config.string_match_reward_scorer.json_match_expression
    assert (
        of_json.key_name,
        of_json.value_string_match_expression.match_operation,
    ) == ("label", "EXACT_MATCH")
    of_text = words.reward_config.string_match_reward_scorer.string_match_expression
    assert (
        of_text.match_operation,
        of_text.expression,
    ) == ("PARTIAL_MATCH", "in {{references.city}}")


def test_a_reward_function_of_its_own_goes_as_it_is() -> None:
    single: dict[str, JsonValue] = {"rewardName": "r", "cloudRunRewardScorer": {"cloudRunUri": "u"}}
    assert reward_settings(rewarded(None), single) == {"singleRewardConfig": single}
    composite: dict[str, JsonValue] = {"weightedRewardConfigs": [{"rewardConfig": single}]}
    assert reward_settings(rewarded(None), composite) == {"compositeRewardConfig": composite}
    with pytest.raises(JobError, match="both define the reward"):
        reward_settings(rewarded(grader(CHECK)), single)


@pytest.mark.parametrize(
    ("scorer", "why"),
    [
        (None, "cannot compute the scorer 'exact'"),
        ({"type": "token_f1"}, "cannot compute the scorer 'token_f1'"),
        (grader({**CHECK, "operation": "ilike"}), "does not support ilike"),
        (grader(ALIKE), "does not support text_similarity"),
        (grader({**CHECK, "input": "{{sample.output_json.a.b}}"}), "a key of its JSON"),
        (grader({**CHECK, "input": "answer: {{sample.output_text}}"}), "the whole answer"),
        (grader({**CHECK, "reference": "{{sample.output_text}}"}), "against keys of the row"),
        (multi("label * words", label=LABEL, words=EITHER), "a weighted mean"),
        (multi("max(label, words)", label=LABEL, words=EITHER), "a weighted mean"),
        (multi("label + words", label=LABEL, words=EITHER), "add up to 1"),
        (multi("2 * label - words", label=LABEL, words=EITHER), "a weighted mean"),
        (multi("label / words", label=LABEL, words=EITHER), "a weighted mean"),
    ],
)
def test_what_vertex_cannot_compute_is_refused(scorer: dict[str, Any] | None, why: str) -> None:
    with pytest.raises(JobError, match=why.replace("(", r"\(")):
        reward_settings(rewarded(scorer), None)
