"""Compare the shared prefix with padding: losses, gradients, and tokens per CPU-second.

    python benchmarks/shared_prefix.py ROWS [--model NAME] [--batch-size 8] [--batches 4]
                                            [--dtype float32] [--threads N] [--forms shared trl]
                                            [--list-answers]

ROWS is a file of canonical JSON Lines; its first rows, shuffled by a fixed seed, make the batches.
Every form of training gets the same batches, weights and optimiser:

    plain    rows padded, logits at every position, peft's own arithmetic, like a textbook loop
    padded   rows padded, logits only where there is loss, one rounding
    packed   rows end to end without padding
    shared   rows end to end, with their common beginning computed once, as in unitune
    trl      TRL's SFTTrainer, if it is installed

Differences are measured against plain on the first batch, before any update. Speed is in real
tokens (padding and sharing not counted) per CPU-second of forward, backward and update, so that
other load hardly changes it. Each form runs in its own process, whose high-water mark is its
memory. `--list-answers` makes prompts longer. The comparison with TRL, on rows of banking77:

    python benchmarks/shared_prefix.py examples/bank-intents/train.jsonl --list-answers \
        --batches 6 --threads 1 --forms shared trl
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in the worker

import torch

from unitune.data.dataset import Dataset, Row
from unitune.job.job import Job
from unitune_local import machine
from unitune_local.data import attention
from unitune_local.data.batches import TrainingRow, padded
from unitune_local.data.rows import read_rows, render_rows
from unitune_local.models import store
from unitune_local.models.model import add_adapter, load_model, load_tokenizer, use_attention
from unitune_local.models.size import dimensions_of
from unitune_local.objectives.loss import Form, loss_sum
from unitune_local.settings import Settings, resolve

FORMS = {
    "padded": Form("padded", share=False),
    "packed": Form("packed", share=False),
    "shared": Form("packed", share=True),
}
LEARNING_RATE = 2e-4


@dataclass(frozen=True)
class Measured:
    """Result of one form of training over the batches."""

    losses: list[float]
    gradient: Any
    """Gradient of the first batch, all adapters in one array; None: not measured."""
    tokens_per_cpu_second: float
    peak_bytes: int = 0
    """Peak memory of its process."""


def fresh_model(path: Path, settings: Settings, form: str) -> Any:
    """Return the base with new adapters whose B is not zero, so that all gradients count."""
    torch.manual_seed(0)
    model = add_adapter(load_model(path, settings.torch_dtype), settings)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    if form in ("plain", "trl"):
        for layer in model.modules():
            vars(layer).pop("forward", None)
    if form in ("packed", "shared"):
        use_attention(model, attention.NAME)
    torch.set_num_threads(settings.threads)
    return model.train()


def plain_loss(model: Any, rows: Sequence[TrainingRow]) -> torch.Tensor:
    """Return the mean loss as a textbook loop computes it."""
    batch = padded(rows)
    labels = torch.full_like(batch.ids, -100)
    for at, row in enumerate(rows):
        for place, on in enumerate(row.trained):
            if on:
                labels[at, place] = row.ids[place]
    output = model(input_ids=batch.ids, attention_mask=batch.attention_mask, use_cache=False)
    shifted = output.logits[:, :-1].float().flatten(0, 1)
    return torch.nn.functional.cross_entropy(shifted, labels[:, 1:].flatten())


def our_loss(model: Any, rows: Sequence[TrainingRow], form: Form) -> torch.Tensor:
    """Return the mean loss as unitune computes it."""
    return loss_sum(model, form.batch(rows, model.device)) / sum(row.trained_tokens for row in rows)


def measure(model: Any, batches: list[list[TrainingRow]], loss_of: Callable[..., Any]) -> Measured:
    """Train on the batches; the first is not timed, because it prepares memory and kernels."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    losses, gradient, spent, tokens = [], None, 0.0, 0
    for rows in batches:
        start = time.process_time()
        loss = loss_of(model, rows)
        loss.backward()
        if gradient is None:
            gradient = torch.cat([weight.grad.flatten() for weight in weights]).numpy()
        optimizer.step()
        optimizer.zero_grad()
        if losses:
            spent += time.process_time() - start
            tokens += sum(len(row.ids) for row in rows)
        losses.append(loss.item())
    return Measured(losses, gradient, tokens / spent)


def train_in_order(
    trainer: type, config: Any, model: Any, records: list[dict[str, Any]], tokenizer: Any
) -> tuple[list[float], float]:
    """Train with a TRL trainer on records in their order.

    Returns:
        The loss of each step, and the CPU-seconds of all steps but the first.
    """
    import pyarrow as pa  # noqa: PLC0415 - optional
    from datasets import Dataset  # noqa: PLC0415 - optional
    from torch.utils.data import SequentialSampler  # noqa: PLC0415 - optional
    from transformers import TrainerCallback  # noqa: PLC0415 - optional

    class Clock(TrainerCallback):
        marks: list[float] = []  # noqa: RUF012 - one run

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.marks.append(time.process_time())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.marks.append(time.process_time())

    class InOrder(trainer):
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset or self.train_dataset)

    clock = Clock()
    run = InOrder(
        model=model,
        args=config,
        train_dataset=Dataset(pa.Table.from_pylist(records), fingerprint="batches"),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    run.train()
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    return losses, sum(clock.marks[3::2]) - sum(clock.marks[2::2])


def trl_settings(folder: str, batches: Sequence[Sequence[TrainingRow]]) -> dict[str, Any]:
    """Return the settings of a TRL trainer, without its expensive defaults."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": len(batches[0]),
        "max_steps": len(batches),
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
    }


def measure_trl(model: Any, batches: list[list[TrainingRow]], tokenizer: Any) -> Measured:
    """Train on the same batches with TRL."""
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415 - optional

    records = [
        {"input_ids": list(row.ids), "completion_mask": [int(on) for on in row.trained]}
        for rows in batches
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        chosen = {"packing": False, "completion_only_loss": True}
        config = SFTConfig(**trl_settings(folder, batches), **chosen)
        losses, spent = train_in_order(SFTTrainer, config, model, records, tokenizer)
    tokens = sum(len(row.ids) for rows in batches[1:] for row in rows)
    return Measured(losses, None, tokens / spent)


def settings_for(path: Path, name: str, dtype: str, threads: int | None) -> Settings:
    """Return unitune's own settings."""
    options: dict[str, Any] = {"dtype": dtype, "device": "cpu", "threads": threads or "auto"}
    job = Job.model_validate(
        {
            "name": "benchmark",
            "model": name,
            "backend": "local",
            "data": {"train": "-"},
            "options": {"local": options},
        }
    )
    return resolve(job, dimensions_of(path, "auto"))


def show(name: str, measured: Measured, plain: Measured) -> None:
    """Print one line of the table."""
    loss = abs(measured.losses[0] - plain.losses[0])
    gradient = "-"
    if measured.gradient is not None and plain.gradient is not None:
        gradient = f"{abs(measured.gradient - plain.gradient).max():.1e}"
    speed = measured.tokens_per_cpu_second
    ratio = speed / plain.tokens_per_cpu_second
    losses = " ".join(f"{one:.5f}" for one in measured.losses)
    figures = f"{speed:12.0f}{ratio:8.2f}x{measured.peak_bytes / 1e9:9.2f}"
    print(f"{name:8}{loss:12.1e}{gradient:>14}{figures}   {losses}", flush=True)


def with_answers_listed(dataset: Dataset) -> Dataset:
    """Return rows whose system message names all answers, as prompts for labels mostly do."""
    answers = sorted({row.example.messages[-1].text for row in dataset.rows})

    def listed(row: Row) -> Row:
        system, *others = row.example.messages
        text = f"{system.text} Answer with one of: {', '.join(answers)}."
        messages = (replace(system, content=text), *others)
        return replace(row, example=row.example.model_copy(update={"messages": messages}))

    return replace(dataset, rows=tuple(listed(row) for row in dataset.rows))


def measure_form(name: str, given: argparse.Namespace) -> Measured:
    """Measure one form in its own process."""
    path = store.resolve(given.model)
    settings = settings_for(path, given.model, given.dtype, given.threads)
    tokenizer = load_tokenizer(path)
    dataset = read_rows(given.rows)
    if given.list_answers:
        dataset = with_answers_listed(dataset)
    rows = list(render_rows(tokenizer, dataset, settings.sequence_length).rows)
    random.Random(0).shuffle(rows)
    size = given.batch_size
    batches = [rows[at * size : (at + 1) * size] for at in range(given.batches)]
    model = fresh_model(path, settings, name)
    if name == "trl":
        measured = measure_trl(model, batches, tokenizer)
    elif name == "plain":
        measured = measure(model, batches, plain_loss)
    else:
        measured = measure(model, batches, partial(our_loss, form=FORMS[name]))
    return replace(measured, peak_bytes=machine.peak_of_process("cpu"))


def main() -> None:
    """Measure all forms, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--forms", nargs="+", choices=[*FORMS, "trl"], default=[*FORMS, "trl"])
    parser.add_argument("--list-answers", action="store_true")
    given = parser.parse_args()
    if importlib.util.find_spec("trl") is None:
        given.forms = [form for form in given.forms if form != "trl"]

    columns = f"{'tok/CPU-s':>12}{'gain':>9}{'GB':>9}"
    print(f"{'form':8}{'loss off':>12}{'gradient off':>14}{columns}   losses")
    own = ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1)
    plain = own.submit(measure_form, "plain", given).result()
    show("plain", plain, plain)
    for form in given.forms:
        show(form, own.submit(measure_form, form, given).result(), plain)


if __name__ == "__main__":
    main()
