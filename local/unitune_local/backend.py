"""Run trainings in a worker process on this machine: the backend named ``local``.

Only the verbs that need torch import it, so that `watch` stays light.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from decimal import Decimal
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from unitune.backends.capabilities import MaskedToken, ServerSettings, StoredModel
from unitune.backends.local_capabilities import (
    AnswerForecast,
    AnswerLoad,
    Exported,
    ExportSpec,
    Forecast,
)
from unitune.backends.protocol import Launch
from unitune.data.dataset import Dataset
from unitune.data.example import Example
from unitune.errors import Unsupported
from unitune.files.system import POSIX
from unitune.job.job import Job
from unitune.models import Start, TunedModel
from unitune_local.job_folder import JobFolder, Result
from unitune_local.options import ChatFormat
from unitune_local.training.worker import environment, start_worker
from unitune_local.training.worker_backend import WorkerBackend

if TYPE_CHECKING:
    from unitune_local.inference.chat import LocalChatModel

if not POSIX:
    raise Unsupported(
        "Training on this machine does not run on Windows itself. Install unitune in WSL "
        "(https://learn.microsoft.com/windows/wsl/install), or choose another backend: "
        "`unitune plan --all` compares them."
    )
for _package in ("torch", "transformers", "peft", "safetensors", "gguf", "psutil"):
    if find_spec(_package) is None:
        raise ModuleNotFoundError(f"No module named {_package!r}", name=_package)


class LocalBackend(WorkerBackend):
    """Backend that trains and answers on this machine."""

    name: ClassVar[str] = "local"
    capabilities = (
        "TrainsInRanks",
        "ShowsLossMask",
        "Stores",
        "Serves",
        "ReportsEnvironment",
        "Exports",
        "Forecasts",
        "ForecastsAnswers",
        "Calibrates",
    )

    def specify(self, launch: Launch) -> str:
        from unitune_local.training.run import prepare  # noqa: PLC0415 - imports torch

        return prepare(launch).model_dump_json(indent=2)

    def made(self, folder: JobFolder, spec: str) -> None:
        _continue_attempt(folder, spec)

    def billed(self, folder: JobFolder, result: Result) -> Decimal | None:
        """Return the cost of judges that rewarded."""
        del result
        return _billed(folder.judgements) if folder.judgements.exists() else None

    def start(self, folder: JobFolder) -> None:
        start_worker(folder)

    def join(self) -> None:
        command = [sys.executable, "-P", "-m", "unitune_local.training.worker"]
        os.execve(command[0], command, environment(1))  # noqa: S606 - our own module

    def chat(self, model: str | TunedModel) -> LocalChatModel:
        from unitune_local.inference.chat import LocalChatModel  # noqa: PLC0415 - imports torch

        if isinstance(model, str):
            return LocalChatModel(model)
        return LocalChatModel(model.base, Path(model.name))

    def serve(
        self, model: str | TunedModel, settings: ServerSettings, announce: Callable[[str], None]
    ) -> None:
        # Set before torch is imported, because other programs share the cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from unitune_local.serving import server  # noqa: PLC0415 - imports torch

        server.serve(self.chat(model), settings, announce)

    def export(self, model: TunedModel, spec: ExportSpec) -> Exported:
        from unitune_local.export.forms import export  # noqa: PLC0415 - imports torch

        return export(model, Path(model.name), spec)

    def forecast(
        self, job: Job, train: Dataset, validation: Dataset, start: Start | None = None
    ) -> Forecast:
        from unitune_local.models import store  # noqa: PLC0415 - imports the hub's client

        base = store.resolve(job.base_model)  # before torch: it may be missing
        from unitune_local.forecasting import forecast  # noqa: PLC0415

        return forecast.forecast(job, base, train, validation, _adapter(start)).summary

    def forecast_answers(self, model: str, cases: Dataset, load: AnswerLoad) -> AnswerForecast:
        from unitune_local.inference import answer_cost  # noqa: PLC0415 - imports torch

        return answer_cost.forecast_answers(model, cases, load)

    def loss_mask(self, job: Job, example: Example) -> tuple[MaskedToken, ...]:
        from unitune_local.data import rows  # noqa: PLC0415 - imports torch
        from unitune_local.models import model, store  # noqa: PLC0415 - imports torch

        if job.method == "rft":  # a prompt is not trained on; its answers are sampled later
            example = example.model_copy(update={"messages": example.prompt, "weight": 0.0})
        form = ChatFormat.of(job)
        tokenizer = model.load_tokenizer(store.resolve(job.base_model), form)
        return rows.masked(tokenizer, example, raw_text=job.method == "cpt")

    def calibrate(
        self, job: Job, train: Dataset, validation: Dataset, start: Start | None = None
    ) -> None:
        from unitune_local.models import store  # noqa: PLC0415 - imports torch
        from unitune_local.training import profile_run  # noqa: PLC0415 - imports torch

        base = store.resolve(job.base_model)
        profile_run.calibrate(job, base, train, validation, _adapter(start))

    def pull(self, name: str) -> StoredModel:
        from unitune_local.models import store  # noqa: PLC0415 - imports what converts models

        return store.pull(name)

    def stored(self) -> list[StoredModel]:
        from unitune_local.models import store  # noqa: PLC0415 - imports what converts models

        return store.stored()

    def report_environment(self) -> dict[str, str]:
        from unitune_local import machine  # noqa: PLC0415 - imports torch
        from unitune_local.models import store  # noqa: PLC0415 - imports torch

        device = machine.device()
        return {
            "device": device.type,
            "cores": str(machine.cores()),
            "dtype": str(machine.best_dtype(device)).removeprefix("torch."),
            "memory free": f"{machine.available_bytes(device.type) / 1e9:.1f} GB",
            "processor": platform.machine(),
            **{name: version(name) for name in ("torch", "transformers", "peft")},
            "models": ", ".join(model.name for model in store.stored()) or "none yet",
        }


def _billed(judgements: Path) -> Decimal:
    from unitune_local.grading import read_judgements  # noqa: PLC0415 - imports HTTP

    return sum((each.usd for each in read_judgements(judgements)[0]), Decimal(0))


def _adapter(start: Start | None) -> Path | None:
    return Path(start.model.name) if start else None


def _continue_attempt(folder: JobFolder, spec: str) -> None:
    """Take over the checkpoints of a previous attempt that failed with the same specification."""
    run, _, attempt = folder.path.name.rpartition("-")
    if not attempt.isdecimal():
        return
    before = JobFolder(folder.path.with_name(f"{run}-{int(attempt) - 1}"))
    ended = before.result()
    if ended is None or ended.state != "failed" or not before.checkpoints.exists():
        return
    # The basis holds this machine's measured speed, which varies.
    earlier = json.loads(before.spec.read_text(encoding="utf-8"))
    if {**earlier, "basis": None} == {**json.loads(spec), "basis": None}:
        before.checkpoints.rename(folder.checkpoints)
