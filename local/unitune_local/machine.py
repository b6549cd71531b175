"""What this machine computes with: the device, the cores that are really ours, the fastest dtype.

In a container or under a scheduler a process often has fewer cores than the machine; using more
threads than cores makes torch many times slower, so affinity and quotas are read instead of the
number of processors.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names in /proc/cpuinfo of instructions that multiply bfloat16 (x86: avx512, AMX; Arm: bf16)."""

PROBE_ROWS, PROBE_INNER, PROBE_COLUMNS = 512, 576, 1536
"""A small model's MLP over a batch of 512 tokens."""
PROBE_SECONDS = 0.1


def device() -> torch.device:
    """Return the best device that is there: cuda, mps or cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@cache
def use_threads() -> int:
    """Let torch use the cores that this process really has, and return their number."""
    threads = cores()
    torch.set_num_threads(threads)
    return threads


@contextmanager
def one_thread() -> Generator[None]:
    """Compute without help while the body runs, to measure this machine.

    Threads that spin for each other would measure who else uses the machine. And a thread that was
    ever helped keeps its helpers: where there are more of them than cores, OpenMP puts all to sleep
    after each product, those of the thread that answers later too.
    Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html (2026-11-25).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Return the cores of this process by affinity, cgroup quota and ``OMP_NUM_THREADS``."""
    limits = [float(_affinity()), *_quotas()]
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal():
        limits.append(float(wanted))
    return max(1, math.floor(min(limits)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[float]:
    """Return the CPU quotas of this process's control groups, in cores.

    A quota of a parent group binds too, so all folders on the way up are read.
    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max) and
    https://docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us), 2026-11-25.
    """
    return [quota for folder in _cgroup_folders(root, own) if (quota := _quota(folder)) is not None]


def _cgroup_folders(root: Path, own: Path) -> Iterator[Path]:
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / controllers if controllers else root
        folder = mount / path.lstrip("/")
        yield from (parent for parent in (folder, *folder.parents) if parent.is_relative_to(mount))


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


@cache
def best_dtype(where: torch.device) -> torch.dtype:
    """Return the faster dtype for model weights on a device.

    Args:
        where: The device.

    Returns:
        bfloat16 where the device multiplies it natively, and on a CPU only when a short measurement
        at model-like shapes shows it faster; float32 otherwise.
    """
    if where.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if where.type != "cpu" or not _cpu_has_bfloat16():
        return torch.float32
    with one_thread():
        return min((torch.float32, torch.bfloat16), key=_seconds_per_product)


def _cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return any(BFLOAT16_FLAGS & set(line.split()) for line in flags)


def _seconds_per_product(dtype: torch.dtype) -> float:
    """Return the shortest time of one product: other processes only ever make it longer."""
    generator = torch.Generator().manual_seed(0)
    left = torch.rand(PROBE_ROWS, PROBE_INNER, generator=generator).to(dtype)
    right = torch.rand(PROBE_INNER, PROBE_COLUMNS, generator=generator).to(dtype)
    end = time.perf_counter() + PROBE_SECONDS
    shortest = math.inf
    while (start := time.perf_counter()) < end:
        torch.mm(left, right)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
