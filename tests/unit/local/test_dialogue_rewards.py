"""Learning from rewards of dialogues: their loops, masks, trainings and refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from support import tiny_training
from support.rewarded_rows import REWARD, use_plain
from support.tiny_model import SETTINGS, save_model
from support.tiny_training import Trained
from support.tuned_here import local_job

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.data.tools import Tools
from unitune.job.job import Job
from unitune.planning.plan import plan
from unitune.planning.preflight import preflight
from unitune.run.run import launch
from unitune.scorers.functions import RewardFunction
from unitune.scorers.interface import Setting
from unitune.scorers.json_text import ToolCalls
from unitune.scorers.trajectory import Trajectory
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rendering import render
from unitune_local.data.rows import render_prompts
from unitune_local.grading import Reward, RewardGrader
from unitune_local.inference.answers import Ending, Generated, Sampling
from unitune_local.inference.generate import generate_in_training
from unitune_local.models.model import add_adapter, load_model, load_tokenizer
from unitune_local.objectives.loss import choose_form
from unitune_local.objectives.reward import RewardLoss
from unitune_local.objectives.rollout import Rollouts

# That of Nous Research: unitune/job/chat_templates
HERMES = Path(__file__).parents[3] / "unitune" / "job" / "chat_templates" / "hermes.jinja"
CITY = '{"name": "weather", "arguments": {"city": "Ulm"}}'
CALL = f"<tool_call>\n{CITY}\n</tool_call>"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def row(number: int) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {**json.loads(CITY)}}
    call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": f"Weather {number}?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "assistant", "content": "It is sunny."},
    ]
    return {"messages": messages, "tools": [TOOL]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("base"), max_position_embeddings=4096)
    (folder / "chat_template.jinja").write_text(HERMES.read_text())
    return folder


def prompts_of(base: Path, count: int) -> tuple[TrainingRow, ...]:
    cases = (Example.model_validate(row(number)) for number in range(count))
    dataset = Dataset("rows", tuple(Row(at, case) for at, case in enumerate(cases, 1)))
    found = render_prompts(load_tokenizer(base), dataset, 4096, has_turns=True)
    assert not found.findings
    return found.rows


def grader_of(base: Path, reward: Reward) -> RewardGrader:
    tools = Tools({"weather": lambda city: "sunny" if city else ""}, {}, "f")
    return RewardGrader(load_tokenizer(base), [reward], tools=tools)


def matches(**options: Any) -> Reward:
    return Reward.of(Trajectory(**options).ready(Setting(), ""))


@pytest.mark.parametrize("max_turns", [1, 2, 3])
def test_tokens_of_results_are_masked_and_all_others_are_as_in_the_row(
    base: Path, max_turns: int
) -> None:
    tokenizer = load_tokenizer(base)
    (prompt,) = prompts_of(base, 1)
    (whole,) = render(tokenizer, Example.model_validate(row(0)))
    end = [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    said = [f"{CALL}", "It is sunny."]

    def generate(
        prompts: Sequence[tuple[int, ...]], settings: Sequence[Sampling]
    ) -> list[Generated]:
        assert len(settings) == len(prompts) == 2
        text = said[len(asked)]
        asked.append(prompts[0])
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [Generated([*ids, *end], text, "stop", 0.0) for _ in prompts]

    asked: list[tuple[int, ...]] = []
    settings = REWARD.model_copy(update={"group_size": 2, "max_turns": max_turns})
    rollouts = Rollouts(generate, grader_of(base, matches(answer="exact")), settings, 0, 4096)
    ((sample, _),) = rollouts.groups([prompt], 1)
    learnt = prompt.followed_by(sample.ids, sample.learnt)
    if max_turns == 1:
        assert (sample.learnt, sample.reward) == ([1] * len(sample.ids), 0.0)
        assert len(asked) == 1
        return
    size = len(learnt.ids)
    assert list(learnt.ids) == whole.ids[:size]
    assert list(map(bool, learnt.trained)) == whole.trained[:size]
    assert tokenizer.decode(whole.ids[size:]) == "\n", "the template's own, after the last turn"
    assert tuple(asked[1]) == tuple(whole.ids[: len(asked[1])]), "what inference would feed"
    assert sample.tokens == sum(whole.trained)
    assert (sample.reward, sample.text, sample.cut) == (1.0, "It is sunny.", False)


@pytest.mark.parametrize(("said", "reward"), [(CALL, 1.0), ("It is sunny.", 0.0)])
def test_calls_of_a_single_answer_are_scored(base: Path, said: str, reward: float) -> None:
    (prompt,) = prompts_of(base, 1)
    assert prompt.case is not None
    wanted = Example.model_validate({**row(0), "messages": row(0)["messages"][:2]})
    grader = RewardGrader(load_tokenizer(base), [Reward.of(ToolCalls())])

    def generate(prompts: Sequence[tuple[int, ...]], _: Sequence[Sampling]) -> list[Generated]:
        return [Generated([1, 2], said, "stop", 0.0) for _ in prompts]

    rollouts = Rollouts(generate, grader, REWARD, 0, 4096)
    ((sample, *_),) = rollouts.groups([replace(prompt, case=wanted)], 1)
    assert (sample.reward, sample.ids, sample.tokens) == (reward, (1, 2), 2)


def run(base: Path, folder: Path, *, stop_after: int | None = None, epochs: int = 8) -> Trained:
    reward = REWARD.model_copy(update={"max_tokens": 2, "group_size": 8, "max_turns": 2})
    settings = SETTINGS.model_copy(
        update={"epochs": epochs, "batch_size": 4, "reward": reward, "sequence_length": 4096}
    )
    rows, grader = prompts_of(base, 4), grader_of(base, matches(match="superset"))
    return tiny_training.run(
        base, rows, rows[:2], folder, settings, stop_after=stop_after, grader=grader
    )


@pytest.fixture
def calling(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that begins with an even token is a call of the tool."""
    monkeypatch.setattr(Ending, "text", lambda _, ids: CALL if ids and ids[0] % 2 == 0 else "no")


@pytest.mark.usefixtures("calling")
def test_the_calls_that_earn_a_reward_become_likelier(base: Path, tmp_path: Path) -> None:
    done = run(base, tmp_path, epochs=24)
    earned = [float(str(data["reward"])) for data in done.steps.values()]
    assert sum(earned[:4]) / 4 < 0.85
    assert sum(earned[-4:]) / 4 > sum(earned[:4]) / 4 + 0.1
    assert done.validations[-1]["reward"] == 1.0
    assert float(str(done.steps[1]["answer_tokens"])) <= 2 * 2


@pytest.mark.usefixtures("calling")
def test_a_resumed_training_has_the_same_dialogues(base: Path, tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole", epochs=4)
    first = run(base, tmp_path / "parts", stop_after=2, epochs=4)
    second = run(base, tmp_path / "parts", epochs=4)
    assert (whole.finished, first.finished, second.finished) == (True, False, True)
    assert whole.steps == first.steps | second.steps


def test_only_written_tokens_have_a_gradient(base: Path) -> None:
    """The loss of a dialogue is that of its answers, given what is before each of them."""
    tokenizer = load_tokenizer(base)
    (prompt,) = prompts_of(base, 1)
    model = add_adapter(load_model(base, torch.float32), SETTINGS)
    generate = partial(generate_in_training, model, tokenizer)
    rollouts = Rollouts(generate, grader_of(base, matches()), REWARD, 0, 4096)
    objective = RewardLoss(rollouts, model, choose_form(model, [prompt], SETTINGS))
    answers, results = (1, 2, 3), (4, 5)
    made = prompt.followed_by((*answers, *results, 6), (1, 1, 1, 0, 0, 1))
    objective._divisor, objective._computed = 4.0, made.trained_tokens
    (part,) = objective.losses([[made]])
    use_plain(model)
    logits = model(input_ids=torch.tensor([list(made.ids)])).logits[0].log_softmax(-1)
    start = len(prompt.ids)
    places = [start, start + 1, start + 2, start + 5]
    expected = -torch.stack([logits[at - 1, made.ids[at]] for at in places]).sum()
    ratios = part.loss.item()
    assert ratios == pytest.approx(-4.0), "ratios are 1 at the first update"
    cast("Any", part.loss).backward()
    names = [name for name, each in model.named_parameters() if each.requires_grad]
    weights = [each for each in model.parameters() if each.requires_grad]
    own = [each.grad for each in weights]
    wanted = cast("Any", torch.autograd).grad(expected, weights)
    for name, mine, theirs in zip(names, own, wanted, strict=True):
        assert mine is not None, name
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_functions_get_the_trajectories_of_a_group(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(
        "def turns(answers, case, trajectories):\n"
        "    return [len(turns) for turns in trajectories]\n"
    )
    scorer = RewardFunction(function="reward.py:turns").ready(Setting(tmp_path), "")
    case = Example.model_validate(row(0))
    scores = scorer.grade(case, ["a", "b"], [case.messages[1:], case.messages[3:]])
    assert [score.value for score in scores] == [3.0, 1.0]


def job_of(base: Path, folder: Path, backend: str = "local", **evaluate: Any) -> Job:
    lines = "".join(f"{json.dumps(row(number))}\n" for number in range(6))
    (folder / "train.jsonl").write_text(lines)
    (folder / "tools.py").write_text("def weather(city):\n    return 'sunny'\n")
    (folder / "reward.py").write_text(
        "def length(answers, case, trajectories):\n"
        "    assert all(turns[-1].role == 'assistant' for turns in trajectories)\n"
        "    return [len(answer) + len(turns) for answer, turns in zip(answers, trajectories)]\n"
    )
    tools = {"tools": {"weather": "tools.py:weather"}, "max_turns": 2}
    reward = {"type": "reward_function", "function": "reward.py:length"}
    return local_job(
        base,
        backend=backend,
        method="rft",
        data={"train": "train.jsonl", "validation": 0.3},
        tuning={
            "epochs": 2,
            "batch_size": 2,
            "reward": {"scorers": reward, "group_size": 2, "max_tokens": 4},
        },
        evaluate={"dialogue": tools, "scorers": ["trajectory"], **evaluate},
        folder=folder,
    )


@pytest.mark.heavy
def test_a_job_is_planned_and_trained_in_a_process_of_its_own(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    job = job_of(base, tmp_path)
    errors = [finding for finding in plan(job).findings if finding.severity == "error"]
    assert not errors
    run = launch(job)
    run.wait()
    assert run.state.value == "succeeded", run
    events = [event for event in run.events() if event.kind == "step"]
    assert len(events) == 4
    assert all(float(str(event.data["reward"])) > 0 for event in events)


def test_other_tools_are_another_training(base: Path, tmp_path: Path) -> None:
    job = job_of(base, tmp_path)
    other = job_of(base, tmp_path, dialogue={"max_turns": 3})
    assert preflight(job).fingerprint != preflight(other).fingerprint


def test_vendors_that_reward_single_answers_refuse_dialogues(base: Path, tmp_path: Path) -> None:
    job = job_of(base, tmp_path, backend="vertex").model_copy(update={"model": "gemini-3.5-flash"})
    words = [str(finding) for finding in plan(job).findings]
    assert any("vertex rewards single answers, not those of" in each for each in words), words
