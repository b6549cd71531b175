"""Let processes that torchrun or Slurm's srun started together train as one run."""

from __future__ import annotations

import os
import re

from unitune.backends import registry
from unitune.backends.capabilities import TrainsInRanks
from unitune.errors import Unsupported


def rank_and_size() -> tuple[int, int] | None:
    """Return the rank of this process and the number of ranks; None if it was started alone.

    Sets torchrun's variables from those of srun, because torch finds the other processes by them.
    A batch script itself runs once, without SLURM_STEP_NUM_TASKS.

    Sources: https://slurm.schedmd.com/srun.html and
    https://docs.pytorch.org/docs/stable/elastic/run.html (environment variables).
    """
    given = os.environ
    if "RANK" not in given and "SLURM_STEP_NUM_TASKS" in given:
        nodes = given.get("SLURM_STEP_NODELIST") or given["SLURM_JOB_NODELIST"]
        first = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)  # such as gpu[07-08,11]
        given.setdefault("MASTER_ADDR", "".join(filter(None, first.groups())) if first else nodes)
        given.setdefault("MASTER_PORT", str(15000 + int(given["SLURM_JOB_ID"]) % 15000))
        given["RANK"], given["WORLD_SIZE"] = given["SLURM_PROCID"], given["SLURM_STEP_NUM_TASKS"]
        given["LOCAL_RANK"] = given["SLURM_LOCALID"]
    rank, size = given.get("RANK", ""), given.get("WORLD_SIZE", "")
    is_one = not (rank.isdecimal() and size.isdecimal() and "MASTER_ADDR" in given and size != "1")
    return None if is_one else (int(rank), int(size))


def join_if_other_rank(backend: str) -> None:
    """Join the training of the first process; return if this is the first or the only one.

    Raise `Unsupported` if the backend cannot train in processes started by torchrun or srun.
    """
    own = rank_and_size()
    if own is None or own[0] == 0:
        return
    if not isinstance(joined := registry.backend(backend), TrainsInRanks):
        raise Unsupported(
            f"backend {backend!r} needs a single process, but torchrun or srun started several."
        )
    joined.join()
