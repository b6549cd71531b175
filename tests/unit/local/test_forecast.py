from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from support.tiny_model import tiny_tokenizer, write_rows
from support.tuned_here import local_job

from unitune.backends.local_capabilities import AnswerLoad, Forecast
from unitune.backends.output_limit import TRAINING_ROOM, automatic_tokens, longest_expected
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.errors import DataError, Unsupported, UserError
from unitune.job.job import Job, Lora, Tuning
from unitune.job.tuning import EarlyStopping
from unitune_local import machine
from unitune_local.data.batches import Fork, TrainingRow
from unitune_local.data.rows import _truncated, read_rows, render_prompts, render_rows
from unitune_local.forecasting import forecast as forecasting
from unitune_local.forecasting.cost import LAYER_FLOPS, PROCESS_BYTES, CostModel, part_cost
from unitune_local.forecasting.forecast import ADAPTER_SHARE, forecast, require_memory
from unitune_local.forecasting.memory_fit import fit_batches
from unitune_local.inference.answer_cost import answer_seconds
from unitune_local.models.adapter import full_findings
from unitune_local.models.model import load_model
from unitune_local.models.size import Speed, empty_model, empty_tuned_model, size_of
from unitune_local.settings import Dimensions, RewardSettings, Settings, default_rate, resolve

pytestmark = pytest.mark.usefixtures("own_cache")  # nothing was calibrated before
TINY = Dimensions(context=512, hidden=32)

NOTHING = Dataset("validation.jsonl", ())


def job(tuning: Tuning | None = None, **options: object) -> Job:
    return local_job(options=options, tuning=tuning or Tuning())


@pytest.fixture
def rows(tmp_path: Path) -> Dataset:
    return read_rows(write_rows(tmp_path / "train.jsonl", 40))


def cost_of(base: Path, settings: Settings) -> CostModel:
    size = size_of(empty_tuned_model(base, settings))
    return CostModel(size, Speed(flop_seconds=1e-9), is_plain=True, file_bytes=0)


def look(base: Path, rows: Dataset, tuning: Tuning | None = None) -> Forecast:
    return forecast(job(tuning), base, rows, NOTHING).summary


def row(line: int, *turns: tuple[str, str], weight: float = 1.0) -> Row:
    messages = [{"role": role, "content": content} for role, content in turns]
    return Row(line, Example.model_validate({"messages": messages, "weight": weight}))


def test_tokens_and_steps_are_those_of_the_training(tiny_model: Path, rows: Dataset) -> None:
    made = render_rows(tiny_tokenizer(), rows, 512).rows
    seen = look(tiny_model, rows, Tuning(epochs=2, batch_size=16))
    assert sum(len(one.ids) for one in made) == seen.tokens
    assert sum(one.trained_tokens for one in made) == seen.trained_tokens
    assert (seen.rows, seen.epochs, seen.steps) == (40, 2, 6)
    assert 0 < seen.seconds_low < seen.seconds_expected < seen.seconds_high
    assert 0 < seen.memory_low_bytes < seen.memory_bytes < seen.memory_high_bytes
    assert seen.measured_on is None


def test_the_most_steps_and_an_early_end_are_in_the_forecast(
    tiny_model: Path, rows: Dataset
) -> None:
    """40 rows in batches of 8 are 5 steps an epoch."""
    whole = look(tiny_model, rows, Tuning(epochs=9))
    fewer = look(tiny_model, rows, Tuning(epochs=9, max_steps=12))
    assert (whole.steps, whole.epochs, fewer.steps, fewer.epochs) == (45, 9, 12, 3)
    assert fewer.seconds_expected < whole.seconds_expected
    stopping = Tuning(epochs=9, early_stopping=EarlyStopping(patience=2))
    early = forecast(job(stopping), tiny_model, rows, rows).summary
    late = forecast(job(Tuning(epochs=9)), tiny_model, rows, rows).summary
    assert not early.findings
    assert (early.steps, early.steps_low, late.steps, late.steps_low) == (45, 15, 45, None)
    assert early.seconds_low < late.seconds_low, "it may end after 3 epochs"


@pytest.mark.parametrize(
    ("tuning", "held_out", "expected"),
    [
        ({"early_stopping": True}, False, ("error", "no-validation")),
        ({"keep": "best"}, False, ("error", "no-validation")),
        ({"keep": "best"}, True, None),
        ({"early_stopping": {"patience": 2}, "epochs": 2}, True, ("warning", "never-early")),
        ({"early_stopping": {"patience": 1}, "epochs": 2}, True, None),
        ({"warmup": 5, "epochs": 1}, False, ("warning", "only-warmup")),
        ({"warmup": 4, "epochs": 1}, False, None),
    ],
)
def test_settings_that_come_to_nothing_are_findings(
    tiny_model: Path,
    rows: Dataset,
    tuning: dict[str, object],
    *,
    held_out: bool,
    expected: tuple[str, str] | None,
) -> None:
    made = job(Tuning.model_validate(tuning))
    findings = forecast(made, tiny_model, rows, rows if held_out else NOTHING).summary.findings
    assert ([expected] if expected else []) == [(each.severity, each.code) for each in findings]


def test_answers_to_the_validation_rows_take_time_at_each_evaluation(
    tiny_model: Path, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step and after each of three epochs."""
    monkeypatch.setattr(forecasting, "answer_seconds", lambda *_: 100 / ADAPTER_SHARE)
    by_loss = forecast(job(Tuning(keep="best")), tiny_model, rows, rows).summary
    by_score = forecast(job(Tuning(best_by="score")), tiny_model, rows, rows).summary
    added = by_score.seconds_expected - by_loss.seconds_expected
    assert pytest.approx(400, abs=10) == added


@pytest.mark.parametrize(
    ("epochs", "steps"), [(0.5, 3), (1.5, 8), (0.01, 1), (1.1, 6), (2, 10), (2.0, 10)]
)
def test_a_fraction_of_an_epoch_is_rounded_up_to_steps(
    tiny_model: Path, rows: Dataset, epochs: float, steps: int
) -> None:
    assert steps == look(tiny_model, rows, Tuning(epochs=epochs, batch_size=8)).steps


def test_a_gpu_computes_few_different_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve(job(device="cuda"), TINY).length_multiple == 32
    assert resolve(job(device="cpu"), TINY).length_multiple == 1


def test_full_fine_tuning_takes_a_tenth_of_the_rate(tiny_model: Path, rows: Dataset) -> None:
    of_adapters, full = resolve(job(), TINY), resolve(job(Tuning(full=True)), TINY)
    assert of_adapters.learning_rate == pytest.approx(10 * full.learning_rate)
    assert look(tiny_model, rows, Tuning(full=True)).settings["full"] is True


def test_the_memory_of_full_fine_tuning_goes_by_all_weights_and_the_optimiser(
    tiny_model: Path, rows: Dataset
) -> None:
    weights = sum(weight.numel() for weight in load_model(tiny_model, torch.float32).parameters())
    plain = look(tiny_model, rows, Tuning(full=True))
    eight_bit = look(tiny_model, rows, Tuning(full=True, optimizer="adamw_8bit"))
    assert plain.memory_bytes - eight_bit.memory_bytes == 6 * weights


@pytest.mark.parametrize("name", ["quantization", "shard"])
def test_what_freezes_the_base_goes_not_with_full_fine_tuning(name: str) -> None:
    value = {"quantization": "4bit", "shard": True}[name]
    settings = resolve(job(Tuning(full=True)), TINY).model_copy(update={name: value})
    (finding,) = full_findings(settings)
    assert f"options.local.{name}" in finding.message


def test_nothing_stays_auto(tiny_model: Path, rows: Dataset) -> None:
    assert "auto" not in str(look(tiny_model, rows).settings)


def test_a_row_that_is_too_long_is_an_error_with_its_line(tiny_model: Path) -> None:
    data = Dataset(
        "train.jsonl",
        (
            row(1, ("user", "hi"), ("assistant", "yo")),
            row(7, ("user", "x" * 600), ("assistant", "yo")),
        ),
    )
    (finding,) = look(tiny_model, data).findings
    assert (
        finding.severity,
        finding.code,
        finding.location,
    ) == ("error", "too-long", "train.jsonl:7")


@pytest.mark.parametrize(
    ("overlength", "kept", "text"),
    [
        (
            "drop",
            1,
            "2 of 3 rows are longer than 512 tokens: 0 are cut at their end, 2 are left out.",
        ),
        (
            "truncate",
            2,
            "2 of 3 rows are longer than 512 tokens: 1 are cut at their end, 1 are left out.",
        ),
    ],
)
def test_rows_that_are_too_long_are_dropped_or_cut_as_the_job_says_and_counted(
    tiny_model: Path, overlength: str, kept: int, text: str
) -> None:
    data = Dataset(
        "train.jsonl",
        (
            row(1, ("user", "hi"), ("assistant", "yo")),
            row(7, ("user", "x" * 600), ("assistant", "its answer would be cut off whole")),
            row(8, ("user", "hi"), ("assistant", "y" * 600)),
        ),
    )
    made = job(Tuning.model_validate({"overlength": overlength}))
    seen = forecast(made, tiny_model, data, NOTHING)
    told = [each for each in seen.summary.findings if each.code == "too-long"]
    assert [(each.severity, each.location, each.message) for each in told] == [
        ("warning", "train.jsonl:7", text)
    ]
    assert kept == len(seen.rows)
    assert (0 if overlength == "drop" else 512) == max(
        (len(each.ids) for each in seen.rows[1:]), default=0
    )


def test_both_answers_of_a_pair_are_cut() -> None:
    pair = TrainingRow(range(20), (False,) * 5 + (True,) * 15, 1.0, 1, Fork(5, 14))
    cut = _truncated(pair, 8)
    assert cut is not None
    assert ([0, 1, 2, 3, 4, 5, 6, 7, 14, 15, 16], Fork(5, 8)) == ([*cut.ids], cut.fork)
    assert [[*side.ids] for side in cut.conversations] == [
        list(range(8)),
        [0, 1, 2, 3, 4, 14, 15, 16],
    ]
    assert _truncated(pair, 5) is None


@pytest.mark.parametrize(
    "empty",
    [
        row(3, ("user", "hi")),
        row(3, ("user", "hi"), ("assistant", "yo"), weight=0.0),
    ],
)
def test_a_row_without_anything_to_learn_is_a_warning(tiny_model: Path, empty: Row) -> None:
    data = Dataset("train.jsonl", (row(1, ("user", "hi"), ("assistant", "yo")), empty))
    (finding,) = look(tiny_model, data).findings
    assert (finding.severity, finding.code, finding.line) == ("warning", "nothing-to-learn", 3)


def test_no_row_to_learn_from_is_an_error(tiny_model: Path) -> None:
    seen = look(tiny_model, Dataset("train.jsonl", (row(1, ("user", "hi")),)))
    assert "error" in [finding.severity for finding in seen.findings]


def test_a_sequence_longer_than_the_model_was_made_for_is_an_error(
    tiny_model: Path, rows: Dataset
) -> None:
    (finding,) = look(tiny_model, rows, Tuning(sequence_length=513)).findings
    assert "512" in finding.message


WIDTHS = {"vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = [
    transformers.Gemma2Config(**WIDTHS, head_dim=8, num_key_value_heads=2),  # no fused attention
    transformers.GptOssConfig(**WIDTHS, head_dim=8, num_local_experts=4, sliding_window=64),
    transformers.FalconConfig(**WIDTHS),  # no intermediate_size, as the two below
    transformers.GPT2Config(vocab_size=258, n_embd=32, n_layer=2, n_head=4),
    transformers.OPTConfig(**WIDTHS, word_embed_proj_dim=32),
    transformers.StableLmConfig(**WIDTHS),  # passes no keywords on to its attention
]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # of peft, about GPT-2
@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_every_architecture_is_forecast(
    tiny_model: Path, tmp_path: Path, rows: Dataset, config: transformers.PreTrainedConfig
) -> None:
    base = tmp_path / "model"
    shutil.copytree(tiny_model, base)
    config.save_pretrained(base)
    made = look(base, rows)
    assert not [finding for finding in made.findings if finding.severity == "error"]
    assert made.memory_bytes > PROCESS_BYTES


def test_a_model_that_states_no_context_needs_a_sequence_length(
    tiny_model: Path, tmp_path: Path, rows: Dataset
) -> None:
    base = tmp_path / "model"
    shutil.copytree(tiny_model, base)
    transformers.Mamba2Config(
        vocab_size=258, hidden_size=32, num_hidden_layers=2, num_heads=8, head_dim=8, n_groups=1
    ).save_pretrained(base)
    with pytest.raises(UserError, match=r"Set tuning\.sequence_length"):
        look(base, rows)


def test_a_token_passes_the_experts_that_its_router_chooses(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Two of four experts, each with three matrices; all of them are held."""
    shutil.copytree(tiny_model, base := tmp_path / "model")
    transformers.MixtralConfig(**WIDTHS, intermediate_size=64, num_local_experts=4).save_pretrained(
        base
    )
    size = size_of(empty_model(base))
    assert size.matrices - size.linear == 2 * 2 * 3 * 32 * 64


def test_targets_that_no_layer_has_are_refused_with_those_that_are(tiny_model: Path) -> None:
    settings = resolve(job(Tuning(lora=Lora(targets=("w_q",)))), TINY)
    with pytest.raises(UserError, match=r"w_q.*down_proj, gate_proj, k_proj"):
        empty_tuned_model(tiny_model, settings)


def test_micro_batches_shrink_until_they_fit(tiny_model: Path, rows: Dataset) -> None:
    settings = resolve(job(Tuning(batch_size=40)), TINY)
    made = render_rows(tiny_tokenizer(), rows, 512).rows
    cost = cost_of(tiny_model, settings)
    whole = fit_batches(cost, settings, made, 2**60)
    keeps_all = {"chunked_cross_entropy": False, "gradient_checkpointing": False}
    assert settings.model_copy(update=keeps_all) == whole.settings
    assert whole == fit_batches(cost, settings, made, whole.peak_bytes)
    smaller = fit_batches(cost, settings, made, whole.peak_bytes - 1)
    assert smaller.settings.micro_batch_tokens < settings.micro_batch_tokens
    assert smaller.peak_bytes < whole.peak_bytes


def test_what_does_not_fit_is_refused_in_gigabytes(tiny_model: Path, rows: Dataset) -> None:
    seen = look(tiny_model, rows).model_copy(
        update={"memory_bytes": 9_000_000_000, "memory_available_bytes": 2_000_000_000}
    )
    with pytest.raises(Unsupported, match=r"9\.0 GB of memory, but only 2\.0 GB"):
        require_memory(seen)


def test_memory_of_a_control_group_binds(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n", encoding="utf-8")
    (tmp_path / "memory.current").write_text("400\n", encoding="utf-8")
    assert machine._memory_left(tmp_path) == [600]
    (tmp_path / "memory.max").write_text("max\n", encoding="utf-8")
    assert machine._memory_left(tmp_path) == []


def test_rows_with_errors_are_not_submitted(tiny_model: Path, tmp_path: Path) -> None:
    from unitune.backends import registry  # noqa: PLC0415 - needs the extra
    from unitune.backends.protocol import Launch  # noqa: PLC0415 - likewise

    file = write_rows(tmp_path / "train.jsonl", 3)
    backend = registry.backend("local")
    tuned = job(Tuning(sequence_length=20)).model_copy(update={"model": str(tiny_model)})
    launch = Launch("run-1", tuned, backend.upload(file, ""), None, tmp_path)
    with pytest.raises(DataError, match=r"train\.jsonl:1: the row has \d+ tokens; 20 are allowed"):
        backend.submit(launch)
    assert backend.find("run-1", tmp_path) == []


def test_wider_models_get_the_rate_of_the_published_formula_and_narrow_ones_the_highest_tried() -> (
    None
):
    """tinker-cookbook: 5e-5 · 10 · (2000 / 4096)^0.781 for a Llama of width 4096."""
    assert pytest.approx(2.857e-4, rel=1e-3) == default_rate(4096)
    assert default_rate(576) == 1e-3


def rewarded(scorer: object, **reward: object) -> Job:
    return local_job(method="rft", tuning={"reward": {"scorers": scorer, **reward}})


def test_sampled_answers_take_as_long_as_they_may_be(tiny_model: Path, rows: Dataset) -> None:
    """Expected ones have 4 letters in the mean and their end; 40 prompts in groups of 8."""
    short, long = (
        forecast(rewarded("exact", max_tokens=most), tiny_model, rows, NOTHING).summary
        for most in (8, 64)
    )
    assert (short.epochs, short.steps) == (3, 15)
    assert (short.trained_tokens, long.trained_tokens) == (40 * 8 * 6, 40 * 8 * 34)
    assert RewardSettings(max_tokens=64).model_dump() == long.settings["reward"]
    assert long.findings == ()


def test_time_of_answers_goes_by_their_tokens(tiny_model: Path, rows: Dataset) -> None:
    """A group's prompt is computed once, and its answers token by token."""
    size, speed = (
        size_of(empty_tuned_model(tiny_model, resolve(job(), TINY))),
        Speed(flop_seconds=1),
    )
    prompts = [row.ids for row in render_prompts(tiny_tokenizer(), rows, 512).rows]

    def seconds(group: int, tokens: int) -> float:
        load = AnswerLoad(group * len(prompts), 0, 0, tokens)
        return answer_seconds(size, speed, prompts, load, group)

    assert seconds(8, 64) > 5 * seconds(8, 2)
    assert seconds(2, 2) > seconds(8, 2) / 4


def test_room_for_answers_in_training(tiny_model: Path, rows: Dataset) -> None:
    """Twice the longest expected answer, counted high, or 64 tokens more than it."""
    settings = forecast(rewarded("exact"), tiny_model, rows, NOTHING).summary.settings
    reward = settings["reward"]
    assert isinstance(reward, dict)
    assert reward["max_tokens"] == automatic_tokens(longest_expected(rows), TRAINING_ROOM)


def test_rows_that_no_answer_could_be_right_for_are_named(tiny_model: Path) -> None:
    data = Dataset(
        "train.jsonl", (row(1, ("user", "hi"), ("assistant", "yo")), row(7, ("user", "hi")))
    )
    missing = forecast(rewarded("exact"), tiny_model, data, NOTHING).summary.findings
    assert [(each.code, each.line) for each in missing] == [("missing-answer", 7)]
    choice = rewarded({"type": "choice", "options": ["yes", "no"]})
    assert [
        (each.code, each.line)
        for each in forecast(choice, tiny_model, data, NOTHING).summary.findings
    ] == [("unusable-expected", 1), ("missing-answer", 7)]
    grader = {"type": "string_check", "operation": "eq", "input": "{{sample.output_text}}"}
    expects = rewarded({"type": "grader", "grader": {**grader, "reference": "{{item.expected}}"}})
    (lacking,) = forecast(expects, tiny_model, data, NOTHING).summary.findings
    assert lacking.line == 7
    assert "the row has no 'expected', which the grader reads" in lacking.message


def test_a_plan_runs_no_code_that_would_score(
    tiny_model: Path, rows: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "checks.py").write_text("raise SystemExit('it ran')\ndef polite(answer, case): ...")
    python = rewarded({"type": "python", "function": "checks.py:polite"})
    seen = forecast(python.model_copy(update={"folder": tmp_path}), tiny_model, rows, NOTHING)
    assert seen.summary.findings == ()
    gone = forecast(python, tiny_model, rows, NOTHING).summary.findings
    assert [each.code for each in gone] == ["reward"]


def test_processes_share_the_time_and_each_needs_its_memory(
    tiny_model: Path, rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "products_per_second", lambda *_: 1e6)
    monkeypatch.setitem(LAYER_FLOPS, "cpu", 0)
    alone, both = (
        forecast(job(processes=count), tiny_model, rows, rows).summary for count in (1, 2)
    )
    assert (alone.settings["processes"], both.settings["processes"]) == (1, 2)
    assert (alone.tokens, alone.steps) == (both.tokens, both.steps)
    assert both.seconds_expected < 0.7 * alone.seconds_expected
    assert 1.5 * alone.memory_bytes < both.memory_bytes <= 2 * alone.memory_bytes
    with pytest.raises(Unsupported, match="Each of the 2 processes holds the whole model"):
        require_memory(both.model_copy(update={"memory_available_bytes": 1}))


def test_a_step_takes_as_long_as_its_busiest_process(tiny_model: Path, rows: Dataset) -> None:
    settings = resolve(job(processes=2, share_prefix=False), TINY)
    cost = cost_of(tiny_model, settings)
    made = [*render_rows(tiny_tokenizer(), rows, 512).rows[:3]]
    step = cost.step(made, settings)
    assert [len(row.ids) for row in made] == [73, 76, 76]
    busiest = [made[0], made[1]]
    assert step.parts == [busiest, [made[2]]]
    assert step.busiest == [part_cost(cost.size, busiest, cost.form(settings), settings)]


def test_every_gpu_gets_a_process_that_has_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(machine, "cores", lambda: 16)
    on_gpus = job(Tuning(batch_size=3), device="cuda", threads="auto")
    settings = resolve(on_gpus, TINY)
    assert (settings.processes, settings.threads, settings.processes_per_device) == (3, 5, 1)
    settings = resolve(job(device="cpu", threads="auto"), TINY)
    assert (settings.processes, settings.threads) == (1, 16)
    settings = resolve(job(device="cpu", processes=4, threads="auto"), TINY)
    assert (settings.processes, settings.threads, settings.processes_per_device) == (4, 4, 4)
