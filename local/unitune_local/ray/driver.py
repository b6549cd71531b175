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

from unitune_local.remote.launch import VARIABLE, RayOptions, RemoteLaunch
from unitune_local.remote.worker import TRAINING_ENVIRONMENT, supervise


def main(launch: RemoteLaunch) -> int:
    """Train, and return the exit status: 0 if a model was trained."""

    def start(number: int) -> str:
        try:
            trainer(launch, f"start-{number}").fit()
        except ray.train.TrainingFailedError as error:
            traceback.print_exc()
            return str(error).strip().rpartition("\n")[2]
        return ""

    return supervise(launch, start)


def trainer(launch: RemoteLaunch, name: str) -> TorchTrainer:
    """Return a trainer that starts the workers once."""
    options = _options(launch)
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
    from unitune_local.remote.training import run  # noqa: PLC0415

    launch, ranks = RemoteLaunch.model_validate(config), ALONE
    if _options(launch).workers > 1:
        device = get_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        ranks = Ranks(torch.distributed.group.WORLD, device)
    run(launch, ranks)


def _options(launch: RemoteLaunch) -> RayOptions:
    options = launch.options
    assert isinstance(options, RayOptions), "the offer of this backend names them"
    return options


if __name__ == "__main__":
    sys.exit(main(RemoteLaunch.model_validate_json(os.environ[VARIABLE])))
