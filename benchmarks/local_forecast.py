"""Forecast ten trainings, train them, and say how far the forecasts were off.

    python benchmarks/local_forecast.py TRAIN [--only N]… [--out FOLDER]

TRAIN is a file of canonical JSON Lines. The jobs differ in model (the embedded one, and Llama,
Qwen2, Qwen3 and Mistral of 5 to 300 million random weights with its tokenizer), rank, length of the
rows, batch and dtype. Each is forecast from its shape, calibrated as `unitune plan --calibrate`
does, forecast again, and trained by the worker, which tells its own wall time, CPU time and peak
memory. Nothing is trained twice, and no forecast sees a training. The CPU time is compared too,
because time itself means little while others use the machine.

Results are added to FOLDER/results.jsonl, so that the jobs can be done one at a time; the table is
over all that stand there, and the exit code is 0 when each of ten is within 25 % of the memory and
10 % of the time after its calibration.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from unitune.backend import Launch, State
from unitune.data.example import Example
from unitune.job import Data, Job, Lora, Tuning
from unitune_local import calibrating, loading, store
from unitune_local.backend import LocalBackend
from unitune_local.figures import cpu_seconds
from unitune_local.job_folder import JobFolder
from unitune_local.rows import read_rows

BACKEND = LocalBackend()
FILES = ("train.jsonl", "validation.jsonl")
MEMORY_BAR, TIME_BAR = 0.25, 0.10
EMBEDDED = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Case:
    """One job.

    Args:
        name: For the table.
        model: Makes the configuration of a random model; None: the embedded one.
        rows: To train on.
        rank: Of the adapters.
        batch: Rows of a step.
        joined: Rows of TRAIN that make one; the answers of all are trained.
        epochs: Times that the rows are seen.
        dtype: Of the frozen weights.
    """

    name: str
    model: Callable[[], PreTrainedConfig] | None
    rows: int
    rank: int = 16
    batch: int = 8
    joined: int = 1
    epochs: int = 1
    dtype: str = "auto"


def _sizes(hidden: int, layers: int, heads: int, groups: int) -> dict[str, object]:
    return {
        "vocab_size": 49152,
        "hidden_size": hidden,
        "intermediate_size": hidden * 8 // 3 // 32 * 32,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "initializer_range": 0.05,
    }


CASES = (
    Case("SmolLM2 135M, as in the quickstart", None, rows=160),
    Case("SmolLM2 135M, rank 64, batch 32", None, rows=256, rank=64, batch=32),
    Case("SmolLM2 135M, long rows, rank 8", None, rows=48, rank=8, batch=4, joined=6),
    Case("SmolLM2 135M, float32, 2 epochs", None, rows=64, epochs=2, dtype="float32"),
    Case("Llama 5M", lambda: LlamaConfig(**_sizes(96, 4, 4, 2)), rows=1200, batch=16),
    Case("Qwen2 30M", lambda: Qwen2Config(**_sizes(320, 12, 5, 1)), rows=400, joined=2),
    Case("Qwen3 75M, rank 4", lambda: Qwen3Config(**_sizes(512, 16, 8, 4)), rows=240, rank=4),
    Case(
        "Mistral 60M, a window, padded",
        lambda: MistralConfig(sliding_window=64, **_sizes(448, 14, 7, 7)),
        rows=120,
        batch=4,
    ),
    Case(
        "Llama 180M, rank 32, very long rows",
        lambda: LlamaConfig(**_sizes(896, 14, 14, 2)),
        rows=16,
        rank=32,
        batch=2,
        joined=12,
    ),
    Case("Llama 300M", lambda: LlamaConfig(**_sizes(1024, 20, 16, 4)), rows=64, batch=16),
)


@dataclass(frozen=True)
class Outcome:
    """What was forecast before and after the calibration, and what the worker told of itself."""

    number: int
    name: str
    seconds_before: float
    seconds_after: float
    seconds: float
    cpu_seconds_after: float
    cpu_seconds: float
    bytes_before: int
    bytes_after: int
    bytes: int
    seconds_within: bool
    """Whether the time was within the calibrated range; likewise for bytes."""
    bytes_within: bool
    calibration_seconds: float

    @staticmethod
    def error(forecast: float, actual: float) -> float:
        """Return how far a forecast was off, as a share of what was."""
        return forecast / actual - 1

    @property
    def kept(self) -> bool:
        """Whether the calibrated forecast was as near as promised."""
        return (
            abs(self.error(self.bytes_after, self.bytes)) <= MEMORY_BAR
            and abs(self.error(self.seconds_after, self.seconds)) <= TIME_BAR
        )


def base_of(case: Case, folder: Path) -> str:
    """Return the name of the case's base model, made if it is random."""
    if case.model is None:
        return EMBEDDED
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(case.model())
    model.save_pretrained(folder)
    loading.load_tokenizer(store.resolve(EMBEDDED)).save_pretrained(folder)
    return str(folder)


def rows_of(file: Path, case: Case) -> list[Example]:
    """Return the case's rows, each joined from so many of the file, over and over."""
    source = list(read_rows(file))
    made: list[Example] = []
    for at in range(case.rows + 8):
        parts = [source[(at * case.joined + part) % len(source)] for part in range(case.joined)]
        messages = [message for part in parts for message in part.messages]
        system = [one for one in messages[:1] if one.role == "system"]
        turns = [one for one in messages if one.role != "system"]
        made.append(parts[0].model_copy(update={"messages": (*system, *turns)}))
    return made


def launch_in(folder: Path, job: Job, rows: list[Example]) -> Launch:
    """Write the files of a run and return what a submit needs."""
    uploads = []
    for name, part in zip(FILES, (rows[8:], rows[:8]), strict=True):
        file = folder / name
        file.write_text("".join(row.line + "\n" for row in part), encoding="utf-8")
        uploads.append(BACKEND.upload(file, hashlib.sha256(file.read_bytes()).hexdigest()))
    return Launch("run-1", job, *uploads, folder)


def measured(launch: Launch) -> dict[str, float]:
    """Train to the end and return what the worker told about itself."""
    folder = JobFolder(Path(BACKEND.submit(launch)))
    while folder.result() is None:
        time.sleep(0.1)
    status = BACKEND.poll(str(folder.path), "")
    if status.state is not State.SUCCEEDED:
        raise SystemExit(f"{status.state}: {status.error}")
    return next(event.data for event in status.events if "memory_bytes" in event.data)


def try_case(number: int, file: Path) -> Outcome:
    """Forecast, calibrate, forecast again, train."""
    case = CASES[number - 1]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = base_of(case, folder / "base")
        # A cache of its own, so that nothing was measured before; the models are the usual ones.
        (folder / "cache").mkdir()
        (folder / "cache" / "models").symlink_to(store.cache_folder() / "models")
        os.environ["UNITUNE_CACHE"] = str(folder / "cache")
        job = Job(
            name="forecast",
            model=base,
            backend="local",
            data=Data(train="train.jsonl"),
            tuning=Tuning(epochs=case.epochs, batch_size=case.batch, lora=Lora(rank=case.rank)),
            options={"local": {"dtype": case.dtype}},
        )
        launch = launch_in(folder, job, rows_of(file, case))
        train, validation = (read_rows(folder / name) for name in FILES)
        before = BACKEND.forecast(job, train, validation)
        start = time.monotonic()
        figures = calibrating.calibrate(job, store.resolve(base), train, validation)
        calibration_seconds = time.monotonic() - start
        after = BACKEND.forecast(job, train, validation)
        took = measured(launch)
    return Outcome(
        number=number,
        name=case.name,
        seconds_before=before.seconds_expected,
        seconds_after=after.seconds_expected,
        seconds=took["seconds"],
        cpu_seconds_after=cpu_seconds(figures, after.seconds_expected),
        cpu_seconds=took["cpu_seconds"],
        bytes_before=before.memory_bytes,
        bytes_after=after.memory_bytes,
        bytes=int(took["memory_bytes"]),
        seconds_within=after.seconds_low <= took["seconds"] <= after.seconds_high,
        bytes_within=after.memory_low_bytes <= took["memory_bytes"] <= after.memory_high_bytes,
        calibration_seconds=calibration_seconds,
    )


def print_table(outcomes: list[Outcome]) -> bool:
    """Print what came of the jobs, and return whether all ten kept the promise."""
    print(
        "| job | time before | after | measured | error before | after | in range "
        "| CPU time after | measured | error "
        "| memory before | after | measured | error before | after | in range |"
    )
    print("|--|" + "--:|" * 15)
    for one in outcomes:
        print(
            f"| {one.number}. {one.name} | {one.seconds_before:.0f} s | {one.seconds_after:.0f} s "
            f"| {one.seconds:.0f} s | {one.error(one.seconds_before, one.seconds):+.0%} "
            f"| {one.error(one.seconds_after, one.seconds):+.0%} | {_yes(one.seconds_within)} "
            f"| {one.cpu_seconds_after:.0f} s | {one.cpu_seconds:.0f} s "
            f"| {one.error(one.cpu_seconds_after, one.cpu_seconds):+.0%} "
            f"| {one.bytes_before / 1e9:.2f} GB | {one.bytes_after / 1e9:.2f} GB "
            f"| {one.bytes / 1e9:.2f} GB | {one.error(one.bytes_before, one.bytes):+.0%} "
            f"| {one.error(one.bytes_after, one.bytes):+.0%} | {_yes(one.bytes_within)} |"
        )
    slowest = max(one.calibration_seconds for one in outcomes)
    kept = [one for one in outcomes if one.kept]
    print(
        f"\n{len(kept)} of {len(outcomes)} within {MEMORY_BAR:.0%} of memory and {TIME_BAR:.0%} of "
        f"time after calibration, which took at most {slowest:.0f} s."
    )
    return len(kept) == len(CASES)


def _yes(value: bool) -> str:  # noqa: FBT001
    return "yes" if value else "no"


def main() -> None:
    """Try the cases that were asked for, and print the table of all that were tried."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("--only", type=int, action="append", choices=range(1, len(CASES) + 1))
    parser.add_argument("--out", type=Path, default=Path("local-forecast"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results = given.out / "results.jsonl"
    for number in given.only or range(1, len(CASES) + 1):
        outcome = try_case(number, given.train)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
    lines = results.read_text(encoding="utf-8").splitlines()
    latest = {one["number"]: Outcome(**one) for one in map(json.loads, lines)}
    sys.exit(0 if print_table([latest[number] for number in sorted(latest)]) else 1)


if __name__ == "__main__":
    main()
