"""Start the workers of a training on Ray and wait: ``python -m unitune_local.ray.driver``.

Ray Train restarts lost workers. Its own checkpoints are not used: it may lose the newest, and does
not store the order of rows.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from unitune_local.job_folder import Result
from unitune_local.ray.launch import VARIABLE, RayLaunch
from unitune_local.ray.remote_folder import RemoteFolder
from unitune_local.ray.storage import Storage
from unitune_local.training.worker import ENVIRONMENT

# A node may have to fetch the base model first
TRAINING_ENVIRONMENT = {name: ENVIRONMENT[name] for name in ENVIRONMENT if "OFFLINE" not in name}


def main(launch: RayLaunch) -> int:
    """Train, and return the exit status: 0 if a model was trained."""
    lost = train(launch)
    with RemoteFolder(launch) as folder:
        folder.fetch()
        if folder.local.result() is None:
            times = launch.options.max_failures + 1
            reason = f"it failed {times} times without a new checkpoint; the last error: {lost}"
            folder.finish(Result(state="failed", error=reason))
        result = folder.local.result()
    return 0 if result is not None and result.state == "succeeded" else 1


def train(launch: RayLaunch) -> str:
    """Start workers until they have ended, and return why the last ones failed, if they did.

    Failures are counted since the last checkpoint, as a long training may lose more nodes in all.
    """
    there, failures, saved, number = Storage(launch.storage), 0, set[str](), 0
    while True:
        number += 1
        try:
            trainer(launch, f"start-{number}").fit()
        except ray.train.TrainingFailedError as error:
            traceback.print_exc()
            lost = str(error).strip().rpartition("\n")[2]
        else:
            return ""
        before, saved = saved, there.names(f"jobs/{launch.key}/checkpoints")
        failures = failures + 1 if saved == before else 1
        if failures > launch.options.max_failures:
            return lost


def trainer(launch: RayLaunch, name: str) -> TorchTrainer:
    """Return a trainer that starts the workers once."""
    options = launch.options
    resources = {"CPU": float(options.cpus_per_worker), "GPU": float(options.gpus_per_worker)}
    return TorchTrainer(
        work,
        train_loop_config=launch.model_dump(mode="json"),
        scaling_config=ScalingConfig(
            num_workers=options.workers,
            use_gpu=options.gpus_per_worker > 0,
            resources_per_worker={name: count for name, count in resources.items() if count},
        ),
        run_config=RunConfig(
            name=name,
            storage_path=f"{launch.storage}/ray/{launch.key}",
            failure_config=FailureConfig(max_failures=0),
            worker_runtime_env={"env_vars": TRAINING_ENVIRONMENT},
        ),
    )


def work(config: dict[str, Any]) -> None:
    """Train in a worker, in the process group that Ray has made."""
    import torch  # noqa: PLC0415 - slow, and not needed by the driver

    from unitune_local.parallel.ranks import ALONE, Ranks  # noqa: PLC0415
    from unitune_local.ray.remote_training import run  # noqa: PLC0415

    launch, ranks = RayLaunch.model_validate(config), ALONE
    if launch.options.workers > 1:
        device = get_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        ranks = Ranks(torch.distributed.group.WORLD, device)
    run(launch, ranks)


if __name__ == "__main__":
    sys.exit(main(RayLaunch.model_validate_json(os.environ[VARIABLE])))
