"""Which step is kept, when a training ends early, and that a killed one does the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from safetensors.torch import load_file
from support import tiny_training
from support.tiny_model import SETTINGS, write_rows
from support.tiny_training import Trained
from support.tuned_here import local_job
from transformers import EarlyStoppingCallback, TrainerControl, TrainerState

from unitune.backends.protocol import WORSE, Launch, Upload
from unitune.data.dataset import Dataset
from unitune.errors import RunFailed
from unitune.scorers.interface import Attempt, Setting
from unitune.scorers.text import Exact, Regex
from unitune_local.data import attention
from unitune_local.data.batches import TrainingRow, micro_batches
from unitune_local.data.rows import read_rows, render_rows, scored_cases
from unitune_local.forecasting.forecast import forecast
from unitune_local.grading import Grader
from unitune_local.job_folder import EventLog, JobFolder, Kind, read_events
from unitune_local.models.model import add_adapter, load_model, load_tokenizer, use_attention
from unitune_local.models.model_folder import sha256
from unitune_local.objectives.loss import Form
from unitune_local.objectives.objective import objective_of
from unitune_local.settings import SelectionSettings, Settings
from unitune_local.spec import Spec
from unitune_local.training import checkpoint
from unitune_local.training.loop import validation_figures
from unitune_local.training.run import prepare, run_training
from unitune_local.training.selection import NONE_YET, Evaluations, Selection, dev_score

EARLY = SelectionSettings(keep="best", patience=2)
OVERFITTING = SETTINGS.model_copy(
    update={"epochs": 8, "learning_rate": 6e-2, "evaluate_every": 2.0, "selection": EARLY}
)


def ended_at(values: list[float], settings: SelectionSettings) -> tuple[int, Selection]:
    """Return after which of some evaluations a training ends, and what they come to."""
    selection = NONE_YET
    for step, value in enumerate(values, 1):
        selection = selection.after(step, value, settings)
        if selection.ends(settings):
            return step, selection
    return 0, selection


def ended_in_transformers(values: list[float], patience: int) -> int:
    """Return after which evaluation transformers' own callback ends a training.

    Its trainer sets `best_metric` after the callback has seen an evaluation.
    """
    callback = EarlyStoppingCallback(early_stopping_patience=patience)
    args: Any = SimpleNamespace(metric_for_best_model="loss", greater_is_better=False)
    state, control = TrainerState(), TrainerControl()
    for step, value in enumerate(values, 1):
        callback.on_evaluate(args, state, control, {"eval_loss": value})
        if control.should_training_stop:
            return step
        state.best_metric = min(value, state.best_metric or value)
    return 0


@given(st.lists(st.integers(1, 9).map(float), max_size=12), st.integers(1, 4))
def test_a_training_ends_where_transformers_would_end_it(
    values: list[float], patience: int
) -> None:
    expected = ended_in_transformers(values, patience)
    at, selection = ended_at(values, SelectionSettings(patience=patience))
    assert expected == at
    seen = values[: at or len(values)]
    assert selection.best_step == (seen.index(min(seen)) + 1 if seen else 0)


def test_small_gains_add_up_to_a_gain() -> None:
    """As in Keras, whose best is that of the last gain; the best step is the lowest all the same.

    Source: keras.io/api/callbacks/early_stopping, `min_delta`; keras 3, early_stopping.py.
    """
    settings = SelectionSettings(patience=3, min_delta=0.1)
    steady = [1.0, 0.94, 0.88, 0.82, 0.76]
    at, selection = ended_at(steady, settings)
    assert (at, selection.best_step, selection.last_gain) == (0, 5, 0.76)
    assert ended_at([1.0, 0.95, 0.92, 0.91], settings)[0] == 4


def test_a_loss_that_is_no_number_is_never_best() -> None:
    at, selection = ended_at([float("nan"), 2.0, float("inf"), float("nan")], EARLY)
    assert (at, selection.best_step, selection.best) == (4, 2, 2.0)


# --- in a training


@dataclass
class Rows:
    """Rows that are all answered by red, and validation rows of which half are by rod.

    So the validation loss falls while letters are learnt, and rises once red is.
    """

    train: tuple[TrainingRow, ...]
    validation: tuple[TrainingRow, ...]
    cases: Dataset


@pytest.fixture(scope="module")
def rows(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder, tokenizer = tmp_path_factory.mktemp("data"), load_tokenizer(tiny_model)
    file = write_rows(folder / "train.jsonl", 36)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["messages"][-1]["content"] = "red"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for line in lines[:4]:
        line["messages"][-1]["content"] = "rod"
    held_out = folder / "validation.jsonl"
    held_out.write_text("".join(json.dumps(line) + "\n" for line in lines[:8]), encoding="utf-8")
    cases = read_rows(held_out)
    rows, validation = (
        render_rows(tokenizer, dataset, 512).rows for dataset in (read_rows(file), cases)
    )
    return Rows(rows, validation, cases)


def run(
    base: Path, rows: Rows, folder: Path, settings: Settings = OVERFITTING, **options: Any
) -> Trained:
    return tiny_training.run(base, rows.train, rows.validation, folder, settings, **options)


def conclusion(done: Trained) -> dict[str, Any]:
    (data,) = (data for _, data in done.events if "kept_step" in data)
    return data


def test_a_job_that_overfits_ends_early_with_its_best_step(
    tiny_model: Path, rows: Rows, tmp_path: Path
) -> None:
    done = run(tiny_model, rows, tmp_path)
    losses = done.figures("validation")
    del losses[0]  # decides nothing
    best = min(losses, key=lambda step: losses[step])
    last = max(done.figures("step"))
    assert (best + 4, best + 4) == (last, max(losses)), "two evaluations of two steps each"
    assert best == conclusion(done)["kept_step"]
    assert (
        conclusion(done)["text"]
        == f"ended early, at step {last} of 40, after 2 evaluations without a gain; kept step "
        f"{best}, "
        f"which has the lowest validation loss, {losses[best]:.4f}"
    )
    cut = partial(micro_batches, most_tokens=10_000, share=True)
    use_attention(done.model, attention.NAME)
    form = Form("packed", share=True)
    objective = objective_of(done.model, form, None)
    kept = validation_figures(done.model, objective, rows.validation, cut)["loss"]
    assert pytest.approx(losses[best], rel=1e-5) == kept
    assert kept < losses[last]


@pytest.mark.parametrize("killed_after", [3, 6, 9])
def test_a_killed_training_ends_at_the_same_step_with_the_same_adapter(
    tiny_model: Path, rows: Rows, tmp_path: Path, killed_after: int
) -> None:
    whole = run(tiny_model, rows, tmp_path / "whole")
    assert max(whole.figures("step")) > 9
    first = run(tiny_model, rows, tmp_path / "parts", stop_after=killed_after)
    second = run(tiny_model, rows, tmp_path / "parts")
    assert not first.finished
    for kind in ("step", "validation"):
        assert whole.figures(kind) == first.figures(kind) | second.figures(kind)
    assert conclusion(whole) == conclusion(second)
    for (name, expected), (_, actual) in zip(
        whole.model.named_parameters(), second.model.named_parameters(), strict=True
    ):
        assert torch.equal(expected, actual), name


def test_one_killed_after_its_end_makes_no_step_more(
    tiny_model: Path, rows: Rows, tmp_path: Path
) -> None:
    whole = run(tiny_model, rows, tmp_path)
    again = run(tiny_model, rows, tmp_path)
    assert again.figures("step") == {}
    assert conclusion(whole) == conclusion(again)


def test_the_best_checkpoint_outlives_newer_ones_and_is_checked(
    tiny_model: Path, rows: Rows, tmp_path: Path
) -> None:
    settings = OVERFITTING.model_copy(update={"selection": SelectionSettings(keep="best")})
    done = run(tiny_model, rows, tmp_path, settings)
    best = conclusion(done)["kept_step"]
    assert {path.name for path in tmp_path.iterdir()} == {f"step-{best}", "step-39", "step-40"}
    assert f"all 40 steps are done; kept step {best}" in str(conclusion(done)["text"])
    saved = load_file(tmp_path / f"step-{best}" / checkpoint.TENSORS)
    for name, weight in done.model.named_parameters():
        if weight.requires_grad:
            assert torch.equal(saved[f"weight.{name}"], weight)
    (tmp_path / f"step-{best}" / checkpoint.TENSORS).unlink()
    with pytest.raises(RunFailed, match=f"checkpoint of step {best}, which was the best"):
        run(tiny_model, rows, tmp_path, settings)


def test_last_is_kept_where_a_job_says_so(tiny_model: Path, rows: Rows, tmp_path: Path) -> None:
    settings = OVERFITTING.model_copy(update={"selection": SelectionSettings(patience=2)})
    done = run(tiny_model, rows, tmp_path, settings)
    last = max(done.figures("step"))
    assert last == conclusion(done)["kept_step"]
    assert str(conclusion(done)["text"]).endswith(f"without a gain; kept step {last}")


def test_the_score_of_answers_decides_and_changes_no_loss(
    tiny_model: Path, rows: Rows, tmp_path: Path
) -> None:
    by_score = SelectionSettings(keep="best", best_by="score")
    settings = OVERFITTING.model_copy(update={"selection": by_score})
    grader = Grader(load_tokenizer(tiny_model), Exact().ready(Setting(tmp_path), ""))
    score = partial(dev_score, grader, 3, validation=rows.cases)
    done = run(tiny_model, rows, tmp_path / "scored", settings, score=score)
    scores = done.figures("validation", "score")
    del scores[0]
    best = max(scores, key=lambda step: (scores[step], -step))
    assert scores[best] > 0, "half of the rows are to be answered by red"
    assert best == conclusion(done)["kept_step"]
    assert f"highest validation score, {100 * scores[best]:.1f} %" in str(conclusion(done)["text"])
    use_attention(done.model, "sdpa")
    assert scores[best] == score(done.model)

    plain = settings.model_copy(update={"selection": SelectionSettings()})
    others = run(tiny_model, rows, tmp_path / "plain", plain).figures("step")
    assert done.figures("step").items() <= others.items()


def test_of_rated_answers_the_good_are_scored_alone(tiny_model: Path, tmp_path: Path) -> None:
    """An answer that is rated false is none to expect, and its prompt may have no right one."""
    tuning = {"preference": {"loss": "kto"}, "best_by": "score"}
    job = local_job(tiny_model, method="dpo", tuning=tuning, evaluate={"scorers": ["exact"]})
    turns = [("user", "Colour?"), ("assistant", "red")]
    messages = [{"role": role, "content": content} for role, content in turns]
    lines = [{"messages": messages, "kto_tag": number % 2 == 1} for number in range(8)]
    for name, kept in (("t", lines), ("v", lines[2:6]), ("bad", lines[:6:2])):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in kept))
    train, dev, bad = (read_rows(tmp_path / name) for name in ("t", "v", "bad"))
    assert [case.answer for case in scored_cases(dev)] == ["red", "red"]

    always = Regex(pattern="").ready(Setting(), "")
    scored: list[Attempt] = []

    class Noting:
        name, sums = always.name, always.sums

        def score(self, attempt: Attempt) -> object:
            scored.append(attempt)
            return always.score(attempt)

    model = add_adapter(load_model(tiny_model, torch.float32), SETTINGS)
    grader: Any = Grader(load_tokenizer(tiny_model), Noting())  # pyright: ignore[reportArgumentType] - of a scorer what is used
    assert dev_score(grader, 2, model, dev) == 1.0
    assert scored_cases(dev) == [attempt.case for attempt in scored]

    good, none = (forecast(job, tiny_model, train, rows).summary for rows in (dev, bad))
    assert not [each for each in good.findings if each.severity == "error"]
    (problem,) = (each for each in none.findings if each.severity == "error")
    assert "rated false" in problem.message


def test_a_run_is_told_by_its_spec_what_to_keep_and_delivers_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    """From the job through spec.json to the adapter, as the worker does it."""
    tuning = {"epochs": 3, "best_by": "score", "evaluate_every": 2, "early_stopping": True}
    job = local_job(
        tiny_model,
        tuning=tuning,
        evaluate={"scorers": ["class_f1", "exact"], "max_tokens": 4},
        folder=tmp_path,
    )
    files = [write_rows(tmp_path / name, count) for name, count in (("train", 24), ("dev", 6))]
    uploads = [Upload(str(file), sha256(file)) for file in files]
    spec = prepare(Launch("run-1", job, *uploads, tmp_path))
    assert spec == Spec.model_validate_json(spec.model_dump_json())
    assert spec.dev_scorer is not None
    assert (spec.dev_scorer.grading.scorer.name, spec.dev_scorer.max_tokens) == ("class_f1", 4)
    examples = [row.example for row in read_rows(files[0]).rows]
    scorer = spec.dev_scorer.grading.grader(load_tokenizer(tiny_model), examples).scorer
    assert {example.answer for example in examples} == {"red", "green", "blue"}
    assert not any(map(scorer.refusal, examples)), "its labels are the answers of train"
    folder = JobFolder(tmp_path / "run-1")
    folder.path.mkdir()
    folder.spec.write_text(spec.model_dump_json(), encoding="utf-8")
    model = run_training(folder, EventLog(folder.events))
    assert model is not None
    events = read_events(folder.events, "").events
    scores = {event.data["step"]: event.data["score"] for event in events if "score" in event.data}
    (kept,) = (event.data["kept_step"] for event in events if "kept_step" in event.data)
    assert set(range(0, 10, 2)) >= set(scores)
    saved = load_file(folder.checkpoints / f"step-{kept}" / checkpoint.TENSORS)
    adapter = load_file(Path(model.name) / "adapter_model.safetensors")
    for name, tensor in adapter.items():
        assert torch.equal(saved[f"weight.{name.replace('.weight', '.default.weight')}"], tensor)


def test_most_steps_end_within_an_epoch_and_the_last_is_evaluated(
    tiny_model: Path, rows: Rows, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"max_steps": 7})
    done = run(tiny_model, rows, tmp_path, settings)
    assert list(range(1, 8)) == list(done.figures("step"))
    assert list(done.figures("validation")) == [0, 5, 7]
    assert done.figures("step", "learning_rate")[7] < 0.1 * SETTINGS.learning_rate


@pytest.mark.parametrize(
    ("every", "expected"), [(None, [0, 5, 10]), (3.0, [0, 3, 6, 9, 10]), (0.4, [0, 2, 4, 6, 8, 10])]
)
def test_evaluations_come_by_steps_or_shares_of_an_epoch(
    tiny_model: Path, rows: Rows, tmp_path: Path, every: float | None, expected: list[int]
) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 2, "evaluate_every": every})
    assert expected == list(run(tiny_model, rows, tmp_path, settings).figures("validation"))


@pytest.mark.parametrize(
    ("keep", "losses", "worse"),
    [
        ("last", [2.0, 3.0, 1.9], None),
        ("last", [2.0, 1.0, 2.1], "2.1000 after step 2"),
        ("last", [2.0, 1.0, float("nan")], "not a number after step 2"),
        ("best", [2.0, 1.0, 2.1], None),
        ("best", [2.0, 2.2, 2.1], "2.1000 after step 2"),
    ],
)
def test_a_training_that_has_made_the_model_worse_says_so(
    keep: str, losses: list[float], worse: str | None
) -> None:
    """What counts is the step that is kept."""
    selection = SETTINGS.selection.model_copy(update={"keep": keep})
    changes = {"selection": selection, "epochs": 2}
    told: list[dict[str, JsonValue]] = []

    def note(kind: Kind, data: dict[str, JsonValue]) -> None:
        told.extend([data] if kind == "warning" else [])

    coming = iter(losses)
    settings = SETTINGS.model_copy(update=changes)
    evaluations = Evaluations(lambda: {"loss": next(coming)}, settings, 8, note)
    evaluations.before()
    evaluations.after(1)
    resumed = Evaluations(lambda: {"loss": next(coming)}, settings, 8, note)
    resumed.selection = Selection.model_validate_json(evaluations.selection.model_dump_json())
    resumed.after(2)
    resumed.conclude(2)
    before = "but was 2.0000 before the first step: the training made the model worse"
    expected = [{"text": f"the validation loss is {worse}, {before}", WORSE: True}]
    assert (expected if worse else []) == told
