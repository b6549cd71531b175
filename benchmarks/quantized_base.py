"""Compare frozen weights in 4 and 8 bits with bfloat16: memory, seconds and losses of 20 steps.

    python benchmarks/quantized_base.py [--hidden 2048] [--layers 16] [--steps 20] [--threads N]
                                        [--kinds bfloat16 4bit 8bit]

A Llama of random weights (1.1 billion by default, in a temporary folder) trains on the same rows
with each, in its own process, which finally saves and checks the adapter. `peak` is the high-water
mark, including pages of mapped files; `own` is memory that is not backed by a file (Anonymous in
/proc/self/smaps_rollup), after the last step; `forecast` is the peak that `unitune plan` shows. The
losses of random weights mean nothing by themselves; their distance from those of bfloat16 shows the
effect of quantisation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from shared_prefix import settings_for
from transformers import LlamaConfig, LlamaForCausalLM

from unitune_local import machine
from unitune_local.data.batches import TrainingRow
from unitune_local.forecasting.cost import CostModel
from unitune_local.models import store
from unitune_local.models.adapter import check_adapter
from unitune_local.models.size import Speed, empty_tuned_model, size_of
from unitune_local.settings import Settings
from unitune_local.spec import DataFile, Spec
from unitune_local.training.loop import TrainingContext, train
from unitune_local.training.run import trainable_model
from unitune_local.training.worker import environment

ROW_TOKENS, BATCH_SIZE = 64, 2
KINDS = ("bfloat16", "4bit", "8bit")


def make_model(folder: Path, hidden: int, layers: int) -> None:
    """Write a Llama of random weights in bfloat16."""
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 256,
        vocab_size=32_000,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    with torch.device("cpu"):
        torch.set_default_dtype(torch.bfloat16)
        LlamaForCausalLM(config).save_pretrained(folder)
        torch.set_default_dtype(torch.float32)


def train_one(folder: Path, kind: str, steps: int, threads: int) -> None:
    """Train some steps, and print their cost as JSON."""
    chosen = settings_for(folder, str(folder), "bfloat16", threads).model_dump() | {
        "epochs": 1,
        "batch_size": BATCH_SIZE,
        "quantization": None if kind == "bfloat16" else kind,
        "checkpoint_seconds": 1e9,
    }
    settings = Settings.model_validate(chosen)
    torch.manual_seed(0)
    ids = torch.randint(0, 1000, (steps * BATCH_SIZE, ROW_TOKENS)).tolist()
    half = (False,) * (ROW_TOKENS // 2) + (True,) * (ROW_TOKENS // 2)
    rows = [TrainingRow(tuple(row), half, 1.0, at + 1) for at, row in enumerate(ids)]
    model = trainable_model(folder, settings)
    losses: list[float] = []

    def note(event: str, data: dict[str, object]) -> None:
        losses.extend([float(str(data["loss"]))] if event == "step" else [])

    start = time.process_time()
    with tempfile.TemporaryDirectory() as checkpoints:
        train(model, rows, (), settings, TrainingContext(Path(checkpoints), note, lambda: False))
    seconds = time.process_time() - start
    told = {"losses": losses, "cpu_seconds": seconds, "own_bytes": own_bytes()}
    with tempfile.TemporaryDirectory() as adapter:
        model.save_pretrained(adapter)
        file = DataFile(path=folder, sha256="")
        spec = Spec(
            base="random",
            base_path=folder,
            base_fingerprint="",
            training=file,
            validation=None,
            data_fingerprint="",
            settings=settings,
        )
        check_adapter(model, spec, Path(adapter), [row.ids[: ROW_TOKENS // 2] for row in rows[:2]])
    told["peak_bytes"] = machine.peak_of_process("cpu")
    print(
        json.dumps(told | {"forecast_bytes": forecast_bytes(folder, settings, rows[:BATCH_SIZE])})
    )


def own_bytes() -> int:
    """Return this process's memory that is not backed by a file."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def forecast_bytes(folder: Path, settings: Settings, rows: list[TrainingRow]) -> int:
    """Return the guessed peak of a model without measurements."""
    size = size_of(empty_tuned_model(folder, settings))
    cost = CostModel(
        size, Speed(flop_seconds=1), is_plain=True, file_bytes=store.weight_bytes(folder)
    )
    return cost.peak_bytes(settings, cost.step(rows, settings).busiest)


def main() -> None:
    """Compare all kinds, or train one as a child process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "KIND"))
    given = parser.parse_args()
    if given.one:
        train_one(Path(given.one[0]), given.one[1], given.steps, given.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), given.hidden, given.layers)
        told = {}
        for kind in dict.fromkeys((KINDS[0], *given.kinds)):
            command = [sys.executable, __file__, "--one", folder, kind]
            command += ["--steps", str(given.steps), "--threads", str(given.threads)]
            own = environment(given.threads)  # as in the worker
            ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=own)
            told[kind] = json.loads(ended.stdout)
        expected = told["bfloat16"]["losses"]
        for kind, one in told.items():
            apart = max(abs(a - b) for a, b in zip(one["losses"], expected, strict=True))
            print(
                f"{kind:9} peak {one['peak_bytes'] / 1e9:.2f} GB (forecast "
                f"{one['forecast_bytes'] / 1e9:.2f}), own {one['own_bytes'] / 1e9:.2f} GB, "
                f"{one['cpu_seconds']:.0f} CPU-s, "
                f"loss {one['losses'][0]:.4f} to {one['losses'][-1]:.4f}, at most {apart:.4f} from "
                "bfloat16"
            )


if __name__ == "__main__":
    main()
