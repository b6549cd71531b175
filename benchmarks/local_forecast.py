"""Forecast ten trainings, run them, and measure the errors of the forecasts.

    python benchmarks/local_forecast.py TRAIN [--only N]… [--rounds 3] [--out FOLDER]

TRAIN is a file of canonical JSON Lines. The jobs differ in model (the embedded one, and Llama,
Qwen2, Qwen3 and Mistral of 5 to 300 million random weights with its tokenizer), rank, length of the
rows, batch and dtype. Each is forecast, calibrated as by `unitune plan --calibrate`, forecast
again, and trained by the worker, which reports its wall time and peak memory. A shared machine
changes its speed within minutes, so everything is repeated in rounds; the table has the median,
lowest and highest error of each job.

Results are added to FOLDER/results.jsonl, so that jobs can be run one at a time. The exit code is 0
when every training of all ten is within 35 % of the memory, and of the time after calibration.
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
from itertools import product
from pathlib import Path
from statistics import median

import torch
from pydantic import TypeAdapter
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from unitune.backends.protocol import Launch, State
from unitune.data.example import Example
from unitune.job.job import Data, Job, Lora, Tuning
from unitune_local.backend import LocalBackend
from unitune_local.data.rows import read_rows
from unitune_local.forecasting.forecast import forecast
from unitune_local.job_folder import JobFolder
from unitune_local.models import store
from unitune_local.models.model import load_tokenizer

BACKEND = LocalBackend()
FILES = ("train.jsonl", "validation.jsonl")
MEMORY_BAR, TIME_BAR = 0.35, 0.35
EMBEDDED = "smollm2-135m-instruct"
MODELS = store.cache_folder() / "models"
"""Looked up once: each job has its own cache, with a link to this one."""


@dataclass(frozen=True)
class Case:
    """One job.

    Args:
        name: Name in the table.
        model: Returns the configuration of a random model; None: the embedded one.
        rows: Number of rows to train on.
        rank: Rank of the adapters.
        batch: Rows of a step.
        joined: Rows of TRAIN that make one; all their answers are trained.
        epochs: Passes over the rows.
        dtype: Dtype of the frozen weights.
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
class Compared:
    """A figure forecast before and after the calibration, and measured by the worker."""

    before: float
    after: float
    measured: float

    @property
    def error_before(self) -> float:
        """Error of the first forecast, as a share of the measured figure."""
        return self.before / self.measured - 1

    @property
    def error_after(self) -> float:
        """Error of the second forecast."""
        return self.after / self.measured - 1


@dataclass(frozen=True)
class Outcome:
    """Outcome of one job."""

    number: int
    name: str
    time: Compared
    memory: Compared
    time_in_range: bool
    """True if the calibrated range held the measured time."""
    memory_in_range: bool
    calibration_seconds: float


def base_of(case: Case, folder: Path) -> str:
    """Return the name of the case's base model, created first if it is random."""
    if case.model is None:
        return EMBEDDED
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(case.model())
    model.save_pretrained(folder)
    load_tokenizer(store.resolve(EMBEDDED)).save_pretrained(folder)
    return str(folder)


def rows_of(file: Path, case: Case) -> list[Example]:
    """Return the case's rows, each joined from several of the file, in cycles."""
    source = list(read_rows(file))
    made: list[Example] = []
    for at in range(case.rows + 8):
        parts = [source[(at * case.joined + part) % len(source)] for part in range(case.joined)]
        messages = [message for part in parts for message in part.messages]
        system = [each for each in messages[:1] if each.role == "system"]
        turns = [each for each in messages if each.role != "system"]
        made.append(parts[0].model_copy(update={"messages": (*system, *turns)}))
    return made


def launch_in(folder: Path, job: Job, rows: list[Example]) -> Launch:
    """Write the files of a run, and return the launch."""
    uploads = []
    for name, part in zip(FILES, (rows[8:], rows[:8]), strict=True):
        file = folder / name
        file.write_text("".join(row.line + "\n" for row in part), encoding="utf-8")
        uploads.append(BACKEND.upload(file, hashlib.sha256(file.read_bytes()).hexdigest()))
    return Launch("run-1", job, *uploads, folder)


def measured(launch: Launch) -> dict[str, float]:
    """Train to the end, and return the figures that the worker reported."""
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
        # Its own cache has no earlier measurements; the models are the usual ones.
        (folder / "cache").mkdir()
        MODELS.mkdir(parents=True, exist_ok=True)
        (folder / "cache" / "models").symlink_to(MODELS)
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
        base_path = store.resolve(base)
        before = forecast(job, base_path, train, validation).summary
        start = time.monotonic()
        BACKEND.calibrate(job, train, validation)
        calibration_seconds = time.monotonic() - start
        after = forecast(job, base_path, train, validation).summary
        took = measured(launch)
    return Outcome(
        number=number,
        name=case.name,
        time=Compared(before.seconds_expected, after.seconds_expected, took["seconds"]),
        memory=Compared(before.memory_bytes, after.memory_bytes, took["memory_bytes"]),
        time_in_range=after.seconds_low <= took["seconds"] <= after.seconds_high,
        memory_in_range=after.memory_low_bytes <= took["memory_bytes"] <= after.memory_high_bytes,
        calibration_seconds=calibration_seconds,
    )


def print_table(outcomes: list[Outcome]) -> bool:
    """Print the outcomes, and return whether all ten jobs are within the limits."""
    rounds = {
        number: [each for each in outcomes if each.number == number]
        for number in sorted({each.number for each in outcomes})
    }
    of_each = "measured | error before | after, median | lowest | highest"
    print(f"| job | rounds | time, s: {of_each} | in range | memory, GB: {of_each} | in range |")
    print("|--|" + "--:|" * 13)
    for number, tried in rounds.items():
        print(
            f"| {number}. {tried[0].name} | {len(tried)} "
            f"| {_words([each.time for each in tried], 1, 0)} "
            f"| {sum(each.time_in_range for each in tried)} "
            f"| {_words([each.memory for each in tried], 1e9, 2)} "
            f"| {sum(each.memory_in_range for each in tried)} |"
        )
    kept = [
        _judged(list(rounds.values()), bar, what)
        for bar, what in ((MEMORY_BAR, "memory"), (TIME_BAR, "time"))
    ]
    slowest = max(each.calibration_seconds for each in outcomes)
    print(f"a calibration took at most {slowest:.0f} s")
    return len(rounds) == len(CASES) and all(kept)


def _words(rounds: list[Compared], unit: float, digits: int) -> str:
    """Return five cells of the table."""
    after = sorted(each.error_after for each in rounds)
    return " | ".join(
        [
            f"{median(each.measured for each in rounds) / unit:.{digits}f}",
            f"{median(each.error_before for each in rounds):+.0%}",
            *(f"{error:+.1%}" for error in (median(after), after[0], after[-1])),
        ]
    )


def _judged(rounds: list[list[Outcome]], bar: float, what: str) -> bool:
    """Print how often a figure was forecast well, and return whether it always was."""
    errors = [[getattr(each, what).error_after for each in tried] for tried in rounds]
    near = sum(abs(median(of_job)) <= bar for of_job in errors)
    every = [error for of_job in errors for error in of_job]
    single = sum(abs(error) <= bar for error in every)
    print(
        f"{what} within {bar:.0%} after calibration: {single} of {len(every)} trainings; "
        f"by the median {near} of {len(errors)} jobs"
    )
    return single == len(every)


def main() -> None:
    """Run the chosen cases, and print the table of all results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("--only", type=int, action="append", choices=range(1, len(CASES) + 1))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("local-forecast"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results = given.out / "results.jsonl"
    numbers = given.only or range(1, len(CASES) + 1)
    for _, number in product(range(given.rounds), numbers):
        outcome = try_case(number, given.train)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
    lines = results.read_text(encoding="utf-8").splitlines()
    read = TypeAdapter(Outcome).validate_json
    sys.exit(0 if print_table(list(map(read, lines))) else 1)


if __name__ == "__main__":
    main()
