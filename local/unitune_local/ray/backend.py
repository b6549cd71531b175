"""Train on a Ray cluster: the backend named ``ray``.

Only the cluster needs Ray. Rows, events and adapters are exchanged through a shared storage
(`unitune_local.ray.storage`); a tuned model answers on this machine.

Sources: docs.ray.io, Ray Jobs REST API; tried with Ray 2.60.0.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue, ValidationError

from unitune.backends.capabilities import ServerSettings
from unitune.backends.credentials import key_in
from unitune.backends.exports import ABOUT, Exported, ExportSpec
from unitune.backends.forecasts import AnswerForecast, AnswerLoad
from unitune.backends.kit.api import Api, created_id
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.backends.kit.hosted import HostedBackend, content_name, required
from unitune.backends.launch_keys import LAUNCH_KEY
from unitune.backends.protocol import Guarantee, Launch, State, Status, Upload
from unitune.data.dataset import Dataset
from unitune.errors import BackendError, JobError, NotFoundError
from unitune.job.job import Job
from unitune.models import TunedModel
from unitune.scorers.interface import Scorer, Setting
from unitune.security.json_fields import Fields
from unitune_local.job_folder import Result, parse_events
from unitune_local.models.model_folder import ADAPTER, OTHERS, TOKENIZERS, cache_folder
from unitune_local.ray import storage
from unitune_local.ray.launch import VARIABLE, RayLaunch, RayOptions
from unitune_local.ray.remote_folder import read_events
from unitune_local.ray.storage import Storage

if TYPE_CHECKING:
    from unitune_local.backend import LocalBackend
    from unitune_local.inference.chat import LocalChatModel
ENTRYPOINT = "python -P -m unitune_local.ray.driver"
# Error type of a job whose message ends with the last output of the driver
ENTRYPOINT_FAILED = "JOB_ENTRYPOINT_COMMAND_ERROR"
SHOWN_CHARACTERS = 300
JOBS = "/api/jobs"
START_FILES = ("adapter_*", "unitune.json")
# Files that a training writes into an adapter's folder; others may write there, too
ADAPTER_FILES = frozenset({"adapter_model.safetensors", ADAPTER, ABOUT, *TOKENIZERS, *OTHERS})
NOWHERE = Path("/nowhere")  # folder without files


class RayBackend(HostedBackend[RayOptions]):
    """Backend that trains on a Ray cluster and answers on this machine."""

    name: ClassVar[str] = "ray"
    capabilities = ("Serves", "Deletes", "Exports", "ForecastsAnswers")
    guarantee: ClassVar[Guarantee] = Guarantee.OWN_ID
    address = "http://127.0.0.1:8265"  # Ray's default, also with port-forwarding
    address_variable = "RAY_API_SERVER_ADDRESS"
    key_variable = "RAY_AUTH_TOKEN"
    options = RayOptions
    states: ClassVar[Mapping[str, State]] = {
        "PENDING": State.QUEUED,
        "RUNNING": State.RUNNING,
        "STOPPED": State.CANCELLED,
        "SUCCEEDED": State.SUCCEEDED,
        "FAILED": State.FAILED,
    }

    @property
    def api(self) -> Api:
        """Ray's API of jobs, each under its submission id."""
        return Api(self.endpoint(JOBS))

    @property
    def storage(self) -> Storage:
        """Storage that the environment names; raises UserError without a name."""
        what = "the storage that you and the Ray cluster share"
        return Storage(required(storage.VARIABLE, what))

    def endpoint(self, path: str = "") -> Endpoint:
        """Return an address at the cluster, with the token if one is set."""
        url, token = f"{self.base_url()}{path}", key_in(self.key_variable)
        vendor = Vendor(self.name, self.key_variable, url, self.advice, secrets=(token,))
        key = partial(required, self.key_variable, "the token of the Ray cluster")
        return Endpoint(vendor, url, token=key if token else None)

    def validate_options(self, job: Job) -> None:
        super().validate_options(job)
        if self.job_options(job).shard is True:
            raise JobError(
                "options.ray.shard is true, but each worker of a cluster holds the whole model. "
                "Leave it out; the backend local spreads it over the GPUs of one machine."
            )
        scorers = [*job.rewards]
        scorers += [job.evaluate.deciding] if job.tuning.best_by == "score" else []
        if wanting := next((each for each in scorers if _reads_files(each, job.folder)), None):
            raise JobError(
                f"the scorer {wanting.name!r} reads a file of this machine, which workers of the "
                "cluster do not have. Use a scorer without files, such as exact, write the file's "
                "content into the job, or train with the backend local."
            )

    def upload(self, path: Path, sha256: str) -> Upload:
        """Store a file under the hash of its content, unless it exists."""
        there, name = self.storage, f"files/{content_name(sha256)}.jsonl"
        if not there.exists(name):
            there.put(path, name)
        return Upload(name, sha256)

    def submit(self, launch: Launch) -> str:
        """Create the job, unless one with this key exists."""
        given = self.job_options(launch.job).runtime_env
        sent = RayLaunch.of(launch, self.storage.address, self._stored_start(launch))
        if self.find(launch.key, launch.folder):  # the status of a second call would not show it
            return launch.key
        variables = {**Fields(given).fields("env_vars").all, VARIABLE: sent.model_dump_json()}
        body: dict[str, JsonValue] = {
            "submission_id": launch.key,
            "entrypoint": ENTRYPOINT,
            "entrypoint_num_cpus": 0,  # it only waits for its workers
            "runtime_env": {**given, "env_vars": variables},
            "metadata": {"name": launch.job.name, "model": launch.job.base_model},
        }
        endpoint = self.endpoint(f"{JOBS}/")  # without the slash, the path does not exist
        created = Api(endpoint).post(action=f"create job {launch.key}", body=body)
        return created_id(created, endpoint, "submission_id")

    def find(self, launch_key: str, folder: Path) -> list[str]:
        del folder
        job = self.api.find(launch_key, action=f"find job {launch_key}")
        return [] if job is None else [launch_key]

    def poll(self, job_id: str, cursor: str) -> Status:
        job, there = self.api.get(job_id, action=f"read job {job_id}"), self.storage
        word = job.text("status")
        start, folder = int(cursor or 0), f"jobs/{job_id}"
        try:
            read = parse_events(read_events(there, folder, start), start)
        except ValueError as error:
            where = there.url(f"{folder}/events")
            raise BackendError(f"{where} has a line that is not an event.") from error
        state, result = self.state_of(word), _result(there.read(f"{folder}/result.json"))
        model = result and result.model
        if state is State.SUCCEEDED and model is None:
            state = State.FAILED
            result = Result(state="failed", error=f"no result found in {there.url(folder)}")
        own = {"backend": self.name, "name": there.url(f"{folder}/adapter")}
        return Status(
            state=state,
            raw=word or "no state",
            events=read.events,
            cursor=read.cursor,
            model=model.model_copy(update=own) if model and state is State.SUCCEEDED else None,
            error=_reason(job_id, job, result) if state is State.FAILED else None,
        )

    def cancel(self, job_id: str) -> None:
        self.api.post(job_id, "stop", action=f"cancel {job_id}", body={})

    def delete_file(self, ref: str) -> None:
        self.storage.remove(ref)

    def delete_model(self, model: TunedModel) -> None:
        """Remove all files of a training, here, in the storage and at Ray."""
        there = self.storage
        name = there.name_of(model.name) or ""
        if key := LAUNCH_KEY.search(name):
            shutil.rmtree(_copy(key[0]), ignore_errors=True)
            for folder in ("jobs", "ray"):
                there.remove(f"{folder}/{key[0]}")
            self.api.delete(key[0], action=f"delete {key[0]}")

    def chat(self, model: str | TunedModel) -> LocalChatModel:
        return self._local.chat(model if isinstance(model, str) else self._here(model))

    def serve(
        self, model: str | TunedModel, settings: ServerSettings, announce: Callable[[str], None]
    ) -> None:
        here = model if isinstance(model, str) else self._here(model)
        self._local.serve(here, settings, announce)

    def export(self, model: TunedModel, spec: ExportSpec) -> Exported:
        return self._local.export(self._here(model), spec)

    def forecast_answers(self, model: str, cases: Dataset, load: AnswerLoad) -> AnswerForecast:
        return self._local.forecast_answers(model, cases, load)

    @property
    def _local(self) -> LocalBackend:
        from unitune_local.backend import LocalBackend  # noqa: PLC0415 - needs torch

        return LocalBackend()

    def _stored_start(self, launch: Launch) -> str | None:
        """Return the name of the start adapter in the storage, after storing a local one."""
        if launch.start is None:
            return None
        there, folder = self.storage, launch.start.model.name
        if (name := there.name_of(folder)) is not None:
            return name
        name = f"jobs/{launch.key}/start"
        for file in (each for pattern in START_FILES for each in Path(folder).glob(pattern)):
            there.put(file, f"{name}/{file.name}")
        return name

    def _here(self, model: TunedModel) -> TunedModel:
        there = self.storage
        name = there.name_of(model.name)
        key = LAUNCH_KEY.search(name or "")
        if name is None or key is None or not (there.exists(name) or _copy(key[0]).exists()):
            raise NotFoundError("tuned model", model.name, (), f"It is not in {there.address}.")
        copy = _copy(key[0])
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
                adapter = Path(scratch) / "adapter"
                adapter.mkdir()
                for file in sorted(there.names(name) & ADAPTER_FILES):
                    there.fetch(f"{name}/{file}", adapter / file)
                adapter.rename(copy)
        return model.model_copy(update={"name": str(copy)})


def _copy(key: str) -> Path:
    return cache_folder() / "ray" / key


def _reads_files(scorer: Scorer, folder: Path) -> bool:
    try:
        return scorer.material(Setting(NOWHERE)) != scorer.material(Setting(folder))
    except JobError:
        return True


def _result(content: bytes) -> Result | None:
    try:
        return Result.model_validate_json(content)
    except ValidationError:  # missing, or not whole
        return None


def _reason(job_id: str, job: Fields, result: Result | None) -> str:
    """Return why a job failed: by the training, else by the driver's last output, else by Ray."""
    if result is not None and result.error:
        return result.error
    lines = (job.text("message") or "Ray gave no reason").strip().splitlines()
    line = lines[-1 if job.text("error_type") == ENTRYPOINT_FAILED else 0]
    return f"{line[:SHOWN_CHARACTERS].rstrip('. ')}. See `ray job logs {job_id}`."
