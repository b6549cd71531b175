"""Compare preference training with TRL's DPOTrainer: losses, and tokens per CPU-second.

    python benchmarks/preference.py PAIRS [--model NAME] [--batch-size 4] [--batches 5]
                                          [--dtype float32] [--threads N]

PAIRS is a file of preference rows. Both train on its shortest rows with the same batches, weights,
optimiser and learning rate, and both compute the base model's log-probabilities first. Speed is in
real tokens (each of the two conversations of a pair whole) per CPU-second of forward, backward and
update, so that other load on the machine hardly changes it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in the worker

import torch
from shared_prefix import LEARNING_RATE, Measured, settings_for, train_in_order, trl_settings

from unitune.data.load import load
from unitune_local.data.batches import TrainingRow, micro_batches
from unitune_local.data.rows import render_rows
from unitune_local.models import store
from unitune_local.models.model import add_adapter, load_model, load_tokenizer
from unitune_local.objectives.loss import choose_form
from unitune_local.objectives.objective import PreferenceLoss
from unitune_local.objectives.preference import ReferencePass
from unitune_local.settings import PreferenceSettings, Settings

LOSS = PreferenceSettings(loss="dpo", beta=0.1, label_smoothing=0.0, margin=0.0, nll_weight=0.0)


def fresh_model(path: Path, settings: Settings) -> Any:
    """Return the base with new adapters, the same each time."""
    torch.manual_seed(0)
    model = add_adapter(load_model(path, settings.torch_dtype), settings)
    torch.set_num_threads(settings.threads)
    return model.train()


def tokens_of(batches: Sequence[Sequence[TrainingRow]]) -> int:
    """Return the tokens of all conversations."""
    return sum(len(side.ids) for rows in batches for row in rows for side in row.conversations)


def measure(model: Any, batches: list[list[TrainingRow]], settings: Settings) -> Measured:
    """Train on the batches as unitune does; the first is not timed."""
    form = choose_form(model, batches[0], settings)

    def cut(rows: Sequence[TrainingRow]) -> list[list[TrainingRow]]:
        return micro_batches(rows, settings.micro_batch_tokens, share=form.share)

    with tempfile.TemporaryDirectory() as folder:
        ahead = ReferencePass(model, form, Path(folder) / "reference.jsonl", lambda: False)
        referenced = ahead.run([part] for rows in batches for part in cut(rows))
    assert referenced is not None, "nothing stops it"
    objective = PreferenceLoss(model, form, LOSS)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    losses, spent = list[float](), 0.0
    for rows in batches:
        start, loss = time.process_time(), 0.0
        ready = [referenced[row] for row in rows]
        for part_loss in objective.losses(cut(ready)):
            share = part_loss.loss / len(rows)
            share.backward()
            loss += share.item()
        optimizer.step()
        optimizer.zero_grad()
        if losses:
            spent += time.process_time() - start
        losses.append(loss)
    return Measured(losses, None, tokens_of(batches[1:]) / spent)


def measure_trl(model: Any, batches: list[list[TrainingRow]], tokenizer: Any) -> Measured:
    """Train on the same batches with TRL."""
    from trl import DPOConfig, DPOTrainer  # noqa: PLC0415 - optional

    class OfIds(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # already tokenised by unitune

    forks = [(row, row.fork) for rows in batches for row in rows if row.fork]
    records = [
        {
            "prompt_ids": list(row.ids[: fork.better]),
            "chosen_ids": list(row.ids[fork.better : fork.worse]),
            "rejected_ids": list(row.ids[fork.worse :]),
        }
        for row, fork in forks
    ]
    with tempfile.TemporaryDirectory() as folder:
        chosen = {"beta": LOSS.beta, "precompute_ref_log_probs": True}
        config = DPOConfig(**trl_settings(folder, batches), **chosen)
        losses, spent = train_in_order(OfIds, config, model, records, tokenizer)
    return Measured(losses, None, tokens_of(batches[1:]) / spent)


def main() -> None:
    """Measure both, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()

    path = store.resolve(given.model)
    settings = settings_for(path, given.model, given.dtype, given.threads)
    tokenizer = load_tokenizer(path)
    rows = render_rows(tokenizer, load(given.pairs, use="dpo"), settings.sequence_length).rows
    shortest = sorted(rows, key=lambda row: len(row.ids))
    size = given.batch_size
    batches = [shortest[at * size : (at + 1) * size] for at in range(given.batches)]
    computed = sum(len(row.ids) for some in batches for row in some)
    print(f"{tokens_of(batches)} tokens in both conversations, {computed} with prompts once")

    ours = measure(fresh_model(path, settings), batches, settings)
    model = fresh_model(path, settings)
    for layer in model.modules():
        vars(layer).pop("forward", None)  # peft's own arithmetic
    theirs = measure_trl(model, batches, tokenizer)
    for name, measured in (("unitune", ours), ("trl", theirs)):
        losses = " ".join(f"{loss:.5f}" for loss in measured.losses)
        print(f"{name:8}{measured.tokens_per_cpu_second:8.0f} tokens/CPU-s   losses {losses}")
    apart = max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))
    gain = ours.tokens_per_cpu_second / theirs.tokens_per_cpu_second
    print(f"losses at most {apart:.1e} apart; {gain:.2f} times as many tokens per CPU-second")


if __name__ == "__main__":
    main()
