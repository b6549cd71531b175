"""What a job at Ray runs: ``python -m unitune_local.ray.driver``, which starts workers and waits.

Ray Train starts the workers, and again those that remain when a worker or its node is lost; each
time the training goes on from the newest checkpoint that the storage holds. Of Ray Train's own
checkpoints none is used: it may lose the newest, and knows nothing of the order of rows.
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
from unitune_local.training.worker import ENVIRONMENT

TRAINING_ENVIRONMENT = {name: ENVIRONMENT[name] for name in ENVIRONMENT if "OFFLINE" not in name}
"""A node may have to fetch the base model first."""


def main(launch: RayLaunch) -> int:
    """Train, and return the exit status: 0 where there is a model."""
    options = launch.options
    resources = {"CPU": float(options.cpus_per_worker), "GPU": float(options.gpus_per_worker)}
    trainer = TorchTrainer(
        work,
        train_loop_config=launch.model_dump(mode="json"),
        scaling_config=ScalingConfig(
            num_workers=options.workers,
            use_gpu=options.gpus_per_worker > 0,
            resources_per_worker={name: count for name, count in resources.items() if count},
        ),
        run_config=RunConfig(
            name=launch.key,
            storage_path=f"{launch.storage}/ray",
            failure_config=FailureConfig(max_failures=options.max_failures),
            worker_runtime_env={"env_vars": TRAINING_ENVIRONMENT},
        ),
    )
    lost = ""
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        traceback.print_exc()
        lost = str(error).strip().rpartition("\n")[2]
    with RemoteFolder(launch) as folder:
        folder.fetch()
        if folder.local.result() is None:
            reason = f"it was begun {options.max_failures + 1} times, and the last time: {lost}"
            folder.finish(Result(state="failed", error=reason))
        result = folder.local.result()
    return 0 if result is not None and result.state == "succeeded" else 1


def work(config: dict[str, Any]) -> None:
    """Train in a worker, as one of the process group that Ray has made."""
    import torch  # noqa: PLC0415 - slow, and the driver has no need of it

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
