"""Track runs in MLflow, Weights & Biases, TensorBoard or trackio.

MLflow: one experiment per job, and one MLflow run per run, found by its tag.
``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` and the server's variables choose the
destination. Artifacts are stored only in a bucket, at the server or below the folder of its file.
MLflow would send its token to any other address that an experiment names.

MLflow's own store keeps a metric with the same name, step, time and value once, so points can be
sent again.

MLflow's registry mirrors unitune's. A tag identifies each version; its number is the same unless
other programs register versions of that name. Nothing is uploaded: the source is the run.

Weights & Biases: one project per job, and the same run ids. The environment and the user's own
settings choose the destination (``WANDB_BASE_URL``, ``WANDB_PROJECT``, ``WANDB_MODE=offline``).
Project settings are ignored, because a stranger may have written them.

W&B's history rejects a step below the newest one. So its step is the point's id, which grows, and
the training step is a figure that serves as the x axis. An offline run cannot query its history,
so closing it writes the last id to a file. After a kill, figures are sent twice rather than
never, and the server drops the duplicates by their step.

TensorBoard: event files, in a folder per run below ``.unitune/tensorboard``.

trackio: one project per job, in its local folder or the configured Space. A run's id is its name
there, which resumes it. Steps that the store already has are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from unitune.backends.protocol import State
from unitune.errors import UserError
from unitune.ledger.model_versions import ModelVersion
from unitune.tracking.interface import Point, Results, TrackedRun

RUN_TAG = "unitune.run"
# MLflow's names for final states of a run
STATUSES = {State.SUCCEEDED: "FINISHED", State.FAILED: "FAILED", State.CANCELLED: "KILLED"}
# Limits of one ``log_batch``: https://mlflow.org/docs/latest/rest-api.html (2026-11-28)
METRICS_PER_CALL = 1_000
PARAMETERS_PER_CALL = 100
PARAMETER_CHARACTERS = 6_000


class MlflowTracker:
    """One run in MLflow."""

    def __init__(self, run: TrackedRun) -> None:
        self._mlflow: Any = import_module("mlflow")
        self._entities: Any = import_module("mlflow.entities")
        self._client = self._mlflow.MlflowClient()
        self._run_id: str = self._find_or_create(run)
        parameters = [
            self._entities.Param(key, str(value)[:PARAMETER_CHARACTERS])
            for key, value in run.parameters.items()
        ]
        for start in range(0, len(parameters), PARAMETERS_PER_CALL):
            some = parameters[start : start + PARAMETERS_PER_CALL]
            self._client.log_batch(self._run_id, params=some)
        self.where = f"{self._client.tracking_uri}, run {self._run_id}"

    def log(self, points: Sequence[Point]) -> None:
        """Send figures; existing ones stay unchanged."""
        metrics = [
            self._metric(name, value, point.time, point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for start in range(0, len(metrics), METRICS_PER_CALL):
            self._client.log_batch(self._run_id, metrics[start : start + METRICS_PER_CALL])

    def add(self, results: Results) -> None:
        """Send a comparison's metrics, tags and files (as artifacts)."""
        metrics = [
            self._metric(name, value, results.time, 0) for name, value in results.values.items()
        ]
        tags = [self._entities.RunTag(key, value) for key, value in results.tags.items()]
        self._client.log_batch(self._run_id, metrics=metrics, tags=tags)
        for file in results.files:
            self._client.log_artifact(self._run_id, file, f"comparisons/{results.comparison}")

    def close(self, state: State) -> None:
        """End the MLflow run if the run has ended."""
        if state in STATUSES:
            self._client.set_terminated(self._run_id, STATUSES[state])

    def mirror(self, versions: Sequence[ModelVersion], aliases: Mapping[str, int | None]) -> None:
        """Register missing versions, and move the aliases that differ.

        Aliases that the ledger never had, and versions of other programs, stay unchanged.
        """
        name = versions[0].model
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        numbers = dict(self._registered(name))
        for version in versions:
            if version.run_id not in numbers:
                numbers[version.run_id] = self._register(version)
        theirs = {version.number: numbers[version.run_id] for version in versions}
        standing = self._client.get_registered_model(name).aliases
        for alias, number in aliases.items():
            if number is None and alias in standing:
                self._client.delete_registered_model_alias(name, alias)
            elif number is not None and str(standing.get(alias)) != theirs[number]:
                self._client.set_registered_model_alias(name, alias, theirs[number])

    def _registered(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the runs of unitune's versions with their numbers in MLflow, the lowest last."""
        token: str | None = None
        while token != "":
            page = self._client.search_model_versions(
                f"name = '{name}'", order_by=["version_number DESC"], page_token=token
            )
            yield from (
                (each.tags[RUN_TAG], str(each.version)) for each in page if RUN_TAG in each.tags
            )
            token = page.token or ""

    def _register(self, version: ModelVersion) -> str:
        experiments = [each.experiment_id for each in self._client.search_experiments()]
        same = f"tags.`{RUN_TAG}` LIKE '{version.run_id}%'"  # a later attempt's id is RUN-2
        runs = self._client.search_runs(experiments, same)
        newest = max(runs, key=lambda run: str(run.data.tags[RUN_TAG]), default=None)
        tags = {
            RUN_TAG: version.run_id,
            "unitune.version": str(version),
            "unitune.backend": version.tuned_model.backend,
            "unitune.model": version.tuned_model.name,
            "unitune.base": version.tuned_model.base,
            "unitune.fingerprint": version.fingerprint,
        }
        made = self._client.create_model_version(
            version.model,
            f"unitune://runs/{version.run_id}",
            newest and newest.info.run_id,
            tags,
            await_creation_for=0,
        )
        return str(made.version)

    def _find_or_create(self, run: TrackedRun) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.project)
        experiment = self._client.get_experiment_by_name(name)
        id_ = experiment.experiment_id if experiment else self._client.create_experiment(name)
        same = self._client.search_runs([id_], f"tags.`{RUN_TAG}` = '{run.id}'", max_results=1)
        if not same:
            tags, created = {**run.tags, RUN_TAG: run.id}, int(run.created * 1_000)
            same = [self._client.create_run(id_, created, tags, run.name)]
        store, artifacts = self._client.tracking_uri, same[0].info.artifact_uri
        if not _is_own(artifacts, store):
            raise UserError(
                f"experiment {name} keeps its artifacts at {artifacts}, which does not belong to "
                f"{store}. Name another experiment in MLFLOW_EXPERIMENT_NAME."
            )
        return same[0].info.run_id

    def _metric(self, name: str, value: float, time: float, step: int) -> Any:
        return self._entities.Metric(name, value, int(time * 1_000), step)


def _is_own(artifacts: str, store: str) -> bool:
    """Return whether MLflow may write artifacts to a location without another address or folder."""
    place, server = urlsplit(artifacts), urlsplit(store)
    if place.scheme in ("http", "https"):
        return place[:2] == server[:2]
    if place.scheme in ("", "file"):
        folders = [Path.cwd()]
        if server.scheme == "sqlite":
            folders.append(Path(server.path[1:]).parent)
        elif server.scheme in ("", "file"):
            folders.append(Path(server.path))
        path = Path(unquote(place.path)).resolve()
        return any(path.is_relative_to(folder.resolve()) for folder in folders)
    return True


class TensorBoardTracker:
    """Folder of a run's event files.

    Each process writes its own file. It first reads the files of other processes and skips their
    points. A file that a kill truncated is read up to the truncation.
    """

    def __init__(self, run: TrackedRun) -> None:
        folder = run.home / "tensorboard" / run.id
        self.where = str(folder)
        if folder.is_symlink() or folder.parent.is_symlink():
            raise UserError(f"{folder} is a symbolic link, and nothing is written to it.")
        self._written = _points_in(folder)
        self._event: Any = import_module("tensorboard.compat.proto.event_pb2").Event
        self._summary: Any = import_module("tensorboard.compat.proto.summary_pb2").Summary
        module = import_module("tensorboard.summary.writer.event_file_writer")
        self._writer: Any = module.EventFileWriter(str(folder))

    def log(self, points: Sequence[Point]) -> None:
        """Write figures as scalars by step."""
        for point in points:
            self._write(point.step, point.time, point.values)
        self._writer.flush()

    def add(self, results: Results) -> None:
        """Write the metrics of a comparison as scalars; TensorBoard stores no files."""
        self._write(0, results.time, results.values)

    def close(self, state: State) -> None:
        """Close the file; TensorBoard stores no final state."""
        del state
        self._writer.close()

    def _write(self, step: int, time: float, values: dict[str, float]) -> None:
        for tag, value in values.items():
            if (tag, step, time) not in self._written:
                self._written.add((tag, step, time))
                scalar = self._summary(value=[self._summary.Value(tag=tag, simple_value=value)])
                self._writer.add_event(self._event(wall_time=time, step=step, summary=scalar))


def _points_in(folder: Path) -> set[tuple[str, int, float]]:
    if not folder.is_dir():
        return set()
    module = import_module("tensorboard.backend.event_processing.event_accumulator")
    reader: Any = module.EventAccumulator(str(folder), size_guidance={module.SCALARS: 0})
    reader.Reload()
    return {
        (tag, scalar.step, scalar.wall_time)
        for tag in reader.Tags()[module.SCALARS]
        for scalar in reader.Scalars(tag)
    }


class TrackioTracker:
    """Run in trackio."""

    def __init__(self, run: TrackedRun) -> None:
        trackio: Any = import_module("trackio")
        self._run: Any = trackio.init(
            project=run.project,
            name=run.id,
            config={**run.parameters, **run.tags},
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        logs = trackio.SQLiteStorage.get_logs(run.project, run.id)
        self._written = {(name, entry.get("step")) for entry in logs for name in entry}
        self.where = f"{trackio.TRACKIO_DIR}, project {run.project}"

    def log(self, points: Sequence[Point]) -> None:
        """Send figures by step."""
        for point in points:
            self._write(point.step, point.values)

    def add(self, results: Results) -> None:
        """Send the metrics of a comparison at step 0; its files are not sent."""
        self._write(0, results.values)

    def close(self, state: State) -> None:
        """Send the remaining points; trackio stores no final state."""
        del state
        self._run.finish()

    def _write(self, step: int, values: dict[str, float]) -> None:
        fresh = {name: value for name, value in values.items() if (name, step) not in self._written}
        if fresh:
            self._run.log(fresh, step=step)
            self._written.update((name, step) for name in fresh)


LAST_POINT = "unitune-last-point"  # file in an offline run's folder: id of its last point


class WandbTracker:
    """Run at Weights & Biases."""

    def __init__(self, run: TrackedRun) -> None:
        self._wandb: Any = import_module("wandb")
        folder = Path.cwd()
        before = (folder / "wandb").glob(f"offline-run-*-{run.id}/{LAST_POINT}")
        self._last = max((int(file.read_text(encoding="utf-8")) for file in before), default=0)
        self._run: Any = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", run.project),
            id=run.id,
            name=run.name,
            resume="allow",
            reinit="create_new",
            config={**run.parameters, **run.tags},
            dir=str(folder),
            settings=self._wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )
        if self._run.resumed:
            self._last = self._run.step - 1
        self._run.define_metric("*", step_metric="step")
        self.where = self._run.url or str(Path(self._run.dir).parent)

    def log(self, points: Sequence[Point]) -> None:
        """Send figures after the newest known point."""
        for point in points:
            if point.id > self._last:
                self._run.log({**point.values, "step": point.step}, step=point.id)
                self._last = point.id

    def add(self, results: Results) -> None:
        """Send a comparison's figures to the run's summary, and its files as an artifact."""
        self._run.summary.update({**results.values, **results.tags})
        artifact = self._wandb.Artifact(f"comparison-{self._run.id}", type="comparison")
        for file in results.files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact, aliases=[results.comparison])

    def close(self, state: State) -> None:
        """Send the remaining points; a failed run is shown as failed."""
        self._run.finish(exit_code=int(state in (State.FAILED, State.CANCELLED)))
        if self._run.offline:
            file = Path(self._run.dir).parent / LAST_POINT
            file.write_text(str(self._last), encoding="utf-8")
