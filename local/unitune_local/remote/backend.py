"""Share what backends do that train on other machines and answer on this one.

Rows, events and adapters are exchanged through a storage (`unitune_local.remote.storage`). The
image of a rented machine and its secrets are set in the environment, as a job file may be someone
else's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pydantic import JsonValue, ValidationError

from unitune.backends.capabilities import ServerSettings
from unitune.backends.credentials import key_in
from unitune.backends.exactly_once import LAUNCH_KEY
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.backends.kit.hosted import HostedBackend, content_name, required
from unitune.backends.local_capabilities import (
    ABOUT,
    AnswerForecast,
    AnswerLoad,
    Exported,
    ExportSpec,
)
from unitune.backends.protocol import Launch, State, Status, Upload
from unitune.data.dataset import Dataset
from unitune.errors import BackendError, JobError, NotFoundError
from unitune.job.job import Job
from unitune.models import TunedModel
from unitune.scorers.interface import Scorer, Setting
from unitune.workspace import user_settings
from unitune.workspace.install import requirement
from unitune_local.job_folder import Result, parse_events
from unitune_local.models.model_folder import ADAPTER, OTHERS, TOKENIZERS, cache_folder
from unitune_local.options import refuse_judges
from unitune_local.remote import storage
from unitune_local.remote.folder import read_events
from unitune_local.remote.launch import RemoteLaunch, RemoteOptions
from unitune_local.remote.storage import Storage

if TYPE_CHECKING:
    from unitune_local.backend import LocalBackend
    from unitune_local.inference.chat import LocalChatModel


START_FILES = ("adapter_*", "unitune.json")
# Files that a training writes into an adapter's folder; others may write there, too
ADAPTER_FILES = frozenset({"adapter_model.safetensors", ADAPTER, ABOUT, *TOKENIZERS, *OTHERS})
NOWHERE = Path("/nowhere")  # folder without files
Options = TypeVar("Options", bound=RemoteOptions)


class RemoteBackend(HostedBackend[Options]):
    """Base of backends that train on other machines; subclasses create and poll the job there."""

    capabilities = ("Serves", "Deletes", "Exports", "ForecastsAnswers")
    is_key_optional: ClassVar[bool] = False  # whether requests without a key may be answered

    def endpoint(self, path: str = "") -> Endpoint:
        """Return an address at the machines' vendor, with the key or none if that is optional."""
        if not self.is_key_optional or key_in(self.key_variable):
            return super().endpoint(path)
        url = f"{self.base_url()}{path}"
        return Endpoint(Vendor(self.name, self.key_variable, url, self.advice), url)

    @property
    def storage(self) -> Storage:
        """Storage that the environment names; raises UserError without a name."""
        return Storage(required(storage.VARIABLE, "the storage that you and the workers share"))

    def validate_options(self, job: Job) -> None:
        super().validate_options(job)
        if self.job_options(job).shard is True:
            raise JobError(
                f"options.{self.name}.shard is true, but each worker holds the whole model. "
                "Leave it out; the backend local spreads it over the GPUs of one machine."
            )
        refuse_judges(job)
        scorers = [*job.rewards]
        scorers += [job.evaluate.deciding] if job.tuning.best_by == "score" else []
        if wanting := next((each for each in scorers if _reads_files(each, job.folder)), None):
            raise JobError(
                f"the scorer {wanting.name!r} reads a file of this machine, which the workers of "
                f"{self.name} do not have. Use a scorer without files, such as exact, write the "
                "file's content into the job, or train with the backend local."
            )

    def upload(self, path: Path, sha256: str) -> Upload:
        """Store a file under the hash of its content, unless it exists."""
        there, name = self.storage, f"files/{content_name(sha256)}.jsonl"
        if not there.exists(name):
            there.put(path, name)
        return Upload(name, sha256)

    def remote_launch(self, launch: Launch) -> RemoteLaunch:
        """Return a launch for a worker, after storing its start adapter if that is local."""
        there, name = self.storage, None
        if launch.start is not None:
            folder = launch.start.model.name
            if (name := there.name_of(folder)) is None:
                name = f"jobs/{launch.key}/start"
                for file in (
                    each for pattern in START_FILES for each in Path(folder).glob(pattern)
                ):
                    there.put(file, f"{name}/{file.name}")
        return RemoteLaunch.of(launch, there.address, name)

    def stored_status(
        self, key: str, cursor: str, raw: str | None, state: State, why: Callable[[], str]
    ) -> Status:
        """Return the status of a launch from its folder in the storage.

        Args:
            key: Launch key.
            cursor: Cursor of the previous poll.
            raw: State as reported by the machines that train.
            state: The same as defined by unitune; if ended, the stored result decides.
            why: Returns the reason of a failure that the training itself did not store.
        """
        there, start, folder = self.storage, int(cursor or 0), f"jobs/{key}"
        try:
            read = parse_events(read_events(there, folder, start), start)
        except ValueError as error:
            where = there.url(f"{folder}/events")
            raise BackendError(f"{where} has a line that is not an event.") from error
        result = _result(there.read(f"{folder}/result.json"))
        model = result and result.model
        if state is State.SUCCEEDED and model is None:
            state = State.FAILED
            result = result or Result(
                state="failed", error=f"no result found in {there.url(folder)}"
            )
        own = {"backend": self.name, "name": there.url(f"{folder}/adapter")}
        return Status(
            state=state,
            raw=raw or "no state",
            events=read.events,
            cursor=read.cursor,
            model=model.model_copy(update=own) if model and state is State.SUCCEEDED else None,
            error=((result and result.error) or why()) if state is State.FAILED else None,
        )

    def delete_file(self, ref: str) -> None:
        self.storage.remove(ref)

    def delete_model(self, model: TunedModel) -> None:
        """Remove all files of a training, here and in the storage."""
        there = self.storage
        if key := LAUNCH_KEY.search(there.name_of(model.name) or ""):
            shutil.rmtree(self._copy(key[0]), ignore_errors=True)
            self.delete_launch(there, key[0])

    def delete_launch(self, there: Storage, key: str) -> None:
        """Remove the files of a launch from the storage."""
        there.remove(f"jobs/{key}")

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

    def _here(self, model: TunedModel) -> TunedModel:
        there = self.storage
        name = there.name_of(model.name)
        key = LAUNCH_KEY.search(name or "")
        copy = self._copy(key[0]) if key else NOWHERE
        if name is None or not (copy.exists() or there.exists(name)):
            raise NotFoundError("tuned model", model.name, (), f"It is not in {there.address}.")
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
                adapter = Path(scratch) / "adapter"
                adapter.mkdir()
                for file in sorted(there.names(name) & ADAPTER_FILES):
                    there.fetch(f"{name}/{file}", adapter / file)
                adapter.rename(copy)
        return model.model_copy(update={"name": str(copy)})

    def _copy(self, key: str) -> Path:
        return cache_folder() / self.name / key


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


# Environment variables with the image of a job, and the names of variables that jobs get as secrets
IMAGE, SECRETS = "UNITUNE_IMAGE", "UNITUNE_JOB_SECRETS"
WORKER = ("python", "-P", "-m", "unitune_local.remote.worker")


def job_image() -> str | None:
    """Return the image that the environment names."""
    return user_settings.variable(IMAGE).strip() or None


def installation(extra: str) -> str:
    """Return what a machine without an image installs; raise `JobError` if it cannot."""
    if (wanted := requirement("local", extra)) is None:
        raise JobError(
            "unitune is installed from a folder, which a job cannot install. Build the image in "
            f"the Dockerfile, push it to a registry, and set {IMAGE} to its name."
        )
    return wanted


def named_secrets() -> dict[str, JsonValue]:
    """Return the variables that the environment names as secrets of jobs."""
    names = user_settings.variable(SECRETS).replace(",", " ").split()
    return {name: required(name, f"a secret that {SECRETS} names") for name in names}
