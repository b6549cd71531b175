"""Run trainings in a worker process on this machine: the backend named ``local``.

Only the verbs that need torch import it, so that `watch` stays light.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from unitune.backends.capabilities import MaskedToken, ServerSettings, StoredModel
from unitune.backends.exports import Exported, ExportSpec
from unitune.backends.forecasts import AnswerForecast, AnswerLoad, Forecast
from unitune.backends.protocol import INTERRUPTED, Guarantee, Launch, State, Status, Upload
from unitune.data.dataset import Dataset
from unitune.data.example import Example
from unitune.errors import BackendError, LockTimeout
from unitune.files.filesystem import private_folder, replacing
from unitune.job.job import Job
from unitune.models import Start, TunedModel
from unitune.workspace.locks import is_locked, locked
from unitune_local.job_folder import JobFolder, Result, read_events
from unitune_local.options import ChatFormat
from unitune_local.training.worker import environment, start_worker

if TYPE_CHECKING:
    from unitune_local.inference.chat import LocalChatModel

for _package in ("torch", "transformers", "peft", "safetensors", "gguf", "psutil"):
    if find_spec(_package) is None:
        raise ModuleNotFoundError(f"No module named {_package!r}", name=_package)


# Age in seconds after which a job without events was never started: its submit was killed
STARTING_SECONDS = 60.0
WORKER_GONE = "its worker is gone (killed, perhaps out of memory)"


class LocalBackend:
    """Backend that trains and answers on this machine."""

    name: ClassVar[str] = "local"
    capabilities = (
        "Pauses",
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
    guarantee: ClassVar[Guarantee] = Guarantee.OWN_ID

    def upload(self, path: Path, sha256: str) -> Upload:
        return Upload(str(path.resolve()), sha256)  # not copied; the worker checks the hash

    def submit(self, launch: Launch) -> str:
        """Write the job's folder and start its worker; the same key again finds both there."""
        folder = _folder(launch.folder, launch.key)
        if not folder.spec.exists():
            from unitune_local.training.run import prepare  # noqa: PLC0415 - imports torch

            text = prepare(launch).model_dump_json(indent=2)
            private_folder(folder.path)
            _continue_attempt(folder, launch.key, text)
            with replacing(folder.spec) as file:
                file.write(text)
        start_worker(folder)
        return str(folder.path)

    def find(self, launch_key: str, folder: Path) -> list[str]:
        job = _folder(folder, launch_key)
        return [str(job.path)] if job.spec.exists() else []

    def poll(self, job_id: str, cursor: str) -> Status:
        folder = _existing(job_id)
        # In this order, the result and the last events of a worker that ends in between are read.
        alive = is_locked(folder.lock)
        result = folder.result()
        read = read_events(folder.events, cursor)
        if result is not None:
            state = State(result.state)
            return Status(state, state.value, read.events, read.cursor, result.model, result.error)
        if not alive:
            is_fresh = time.time() - folder.spec.stat().st_mtime < STARTING_SECONDS
            if is_fresh and not folder.events.exists():
                return Status(State.QUEUED, "worker starting", (), read.cursor)
            reason = folder.interrupted_by()
            if folder.pause.exists() and reason is None:
                raw = "paused"
            else:
                raw = f"{INTERRUPTED}: {(reason or WORKER_GONE).rstrip('.')}"
            raw += f"; resume continues after step {folder.saved_step()}"
            return Status(State.PAUSED, raw, read.events, read.cursor)
        if folder.cancel.exists():
            return Status(State.CANCELLING, "cancelling", read.events, read.cursor)
        return Status(State.RUNNING, "training", read.events, read.cursor)

    def cancel(self, job_id: str) -> None:
        """Stop the worker after its current step; a job without a worker ends at once."""
        folder = _existing(job_id)
        folder.cancel.touch(0o600)
        try:
            with locked(folder.lock, f"training {folder.path.name}", wait_seconds=0):
                if folder.result() is None:
                    folder.finish(Result(state="cancelled"))
        except LockTimeout:
            return  # its worker will see the file

    def pause(self, job_id: str) -> None:
        """Have the worker write a checkpoint after its current step, and end."""
        _existing(job_id).pause.touch(0o600)

    def resume(self, job_id: str) -> None:
        folder = _existing(job_id)
        folder.pause.unlink(missing_ok=True)
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
        from unitune_local.export.export import export  # noqa: PLC0415 - imports torch

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


def _adapter(start: Start | None) -> Path | None:
    return Path(start.model.name) if start else None


def _folder(run_folder: Path, launch_key: str) -> JobFolder:
    return JobFolder(run_folder.resolve() / launch_key)


def _continue_attempt(folder: JobFolder, key: str, spec: str) -> None:
    """Take over the checkpoints of a previous attempt that failed with the same specification."""
    run, _, attempt = key.rpartition("-")
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


def _existing(job_id: str) -> JobFolder:
    folder = JobFolder(Path(job_id))
    if not folder.spec.exists():
        raise BackendError(
            f"the training's folder {job_id} does not exist: it was deleted or moved with its "
            "project. If you moved the project, run the command in its new folder. If you deleted "
            "it, cancel the run.",
            status=HTTPStatus.GONE,
        )
    return folder
