"""MLflow: an experiment for each job, a run for each of ours, which is searched by its tag.

Where it goes is MLflow's own business: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` and the
variables of its servers. A metric with the same name, step, time and value is kept once by MLflow's
own store, so what was sent before is sent again without harm.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from unitune.backends.protocol import State
from unitune.tracking.interface import Point, Results, TrackedRun

RUN_TAG = "unitune.run"
STATUSES = {State.SUCCEEDED: "FINISHED", State.FAILED: "FAILED", State.CANCELLED: "KILLED"}
"""MLflow's words for how a run ended."""
METRICS_PER_CALL = 1_000
PARAMETERS_PER_CALL = 100
PARAMETER_CHARACTERS = 6_000
"""Limits of one ``log_batch``: https://mlflow.org/docs/latest/rest-api.html (2026-11-28)."""


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
        """Send figures; those that are there already stay as they are."""
        metrics = [
            self._metric(name, value, point.time, point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for start in range(0, len(metrics), METRICS_PER_CALL):
            self._client.log_batch(self._run_id, metrics[start : start + METRICS_PER_CALL])

    def add(self, results: Results) -> None:
        """Send a comparison: metrics, tags, and its files as artifacts."""
        metrics = [
            self._metric(name, value, results.time, 0) for name, value in results.values.items()
        ]
        tags = [self._entities.RunTag(key, value) for key, value in results.tags.items()]
        self._client.log_batch(self._run_id, metrics=metrics, tags=tags)
        for file in results.files:
            self._client.log_artifact(self._run_id, file, f"comparisons/{results.comparison}")

    def close(self, state: State) -> None:
        """End MLflow's run where ours has ended."""
        if state in STATUSES:
            self._client.set_terminated(self._run_id, STATUSES[state])

    def _find_or_create(self, run: TrackedRun) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.project)
        experiment = self._client.get_experiment_by_name(name)
        id_ = experiment.experiment_id if experiment else self._client.create_experiment(name)
        same = self._client.search_runs([id_], f"tags.`{RUN_TAG}` = '{run.id}'", max_results=1)
        if not same:
            tags, created = {**run.tags, RUN_TAG: run.id}, int(run.created * 1_000)
            same = [self._client.create_run(id_, created, tags, run.name)]
        return same[0].info.run_id

    def _metric(self, name: str, value: float, time: float, step: int) -> Any:
        return self._entities.Metric(name, value, int(time * 1_000), step)
