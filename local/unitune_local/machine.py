"""Find out what this machine computes with: device, cores, memory and the fastest dtype."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil
import torch

from unitune.errors import JobError

CPUINFO = Path("/proc/cpuinfo")
# Flags in /proc/cpuinfo for bfloat16 products (x86: avx512, AMX; Arm: bf16)
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}

# Share of the processors used by other programs above which timings no longer show this machine's
# speed
BUSY_SHARE = 0.3
# Rows, inner and outer width of the timed product: the MLP of a small model on 512 tokens. A GPU
# needs a larger product to reach its speed.
CPU_PROBE, GPU_PROBE = (512, 576, 1536), (8192, 4096, 4096)
PROBE_SECONDS = 0.1
# Lowest compute capability (Ampere) with native bfloat16; older GPUs emulate it.
# Source: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#arithmetic-instructions.
NATIVE_BFLOAT16 = (8, 0)


def chosen_device(name: str) -> torch.device:
    """Return the named device, or the best one for `auto`; raises JobError if it is missing."""
    if name == "auto":
        return device()
    is_there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if name in is_there and not is_there[name]():
        why = "no such GPU is visible here"
        if name == "cuda" and not torch.version.cuda and not torch.version.hip:
            why = f"torch {torch.__version__} is a build without CUDA"
        raise JobError(
            f"options.local.device is {name}, but {why}. Leave it at auto, or install a torch "
            "build and a driver for the GPU."
        )
    return torch.device(name)


def device() -> torch.device:
    """Return the best available device: cuda, mps or cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@cache
def use_threads() -> int:
    """Set torch's thread count to the cores of this process, and return it."""
    threads = cores()
    torch.set_num_threads(threads)
    return threads


@contextmanager
def one_thread() -> Generator[None]:
    """Use one torch thread while the body runs, so that timings measure this machine.

    Spinning threads would measure the load of other programs. A thread that has used helper threads
    keeps them: with more helpers than cores, OpenMP puts all of them to sleep after each product,
    including those of the serving thread.
    Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html (2026-11-25).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def overloaded() -> bool:
    """Return whether the load of the last minute exceeds what this machine can compute."""
    return os.getloadavg()[0] > (1 + BUSY_SHARE) * (os.cpu_count() or 1)


def cores() -> int:
    """Return the cores of this process by affinity, cgroup quota and ``OMP_NUM_THREADS``.

    More threads than cores make torch many times slower.
    """
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
    """Return the CPU quotas of this process's control groups and of their parents, in cores.

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

    On a GPU this is bfloat16 where it is native, else float16. On a CPU it is bfloat16 if a short
    measurement shows it faster. Otherwise it is float32.
    """
    if where.type == "cuda":
        is_native = torch.version.hip or torch.cuda.get_device_capability() >= NATIVE_BFLOAT16
        return torch.bfloat16 if is_native else torch.float16
    if where.type != "cpu" or not _cpu_has_bfloat16():
        return torch.float32
    dtypes = (torch.float32, torch.bfloat16)
    return max(dtypes, key=lambda dtype: products_per_second(where, dtype))


def _cpu_has_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    flags = _cpuinfo(cpuinfo, "flags", "Features")
    return any(BFLOAT16_FLAGS & set(line.split()) for line in flags)


def _cpuinfo(cpuinfo: Path, *names: str) -> set[str]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {line.partition(":")[2].strip() for line in lines if line.startswith(names)}


def available_bytes(device: str) -> int:
    """Return the memory available to a new process on a GPU or on this machine, in bytes."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return min([int(psutil.virtual_memory().available), *_memory_left()])


def has_flash_attention(query: torch.Tensor) -> bool:
    """Return whether a device computes attention for these queries with flash kernels.

    Source: Dao 2023, "FlashAttention-2", arXiv 2307.08691: half precision, heads of up to 256
    values, GPUs from Ampere (compute capability 8.0).
    """
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    return query.shape[-1] <= 256 and torch.cuda.get_device_capability(query.device) >= (8, 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that a device or this machine is out of memory.

    torch has an error class for CUDA only; for MPS and CPU, the message shows it.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "out of memory" in str(error) or "can't allocate memory" in str(error)


def peak_of_process(device: str) -> int:
    """Return the peak memory of this process so far, on a GPU or on this machine, in bytes.

    VmHWM is preferred, because ``ru_maxrss`` may be the parent's.
    Source: https://docs.kernel.org/filesystems/proc.html (VmHWM), 2026-11-25.
    """
    if device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        import resource  # noqa: PLC0415 - Windows does not have it

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    (mark,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(mark.split()[1]) * 1024


def process_seconds() -> float:
    """Return the age of this process."""
    return time.time() - psutil.Process().create_time()


def _memory_left(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return the bytes left of this process's control group, version 2 or 1.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max, memory.current) and
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html, 2026-11-25.
    """
    left: list[int] = []
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most = (root / limit).read_text(encoding="utf-8").strip()
            now = (root / used).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if most.isdecimal():
            left.append(int(most) - int(now))
    return left


def processor(device: str, cpuinfo: Path = CPUINFO) -> str:
    """Return the name of the GPU or the processor."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    models = _cpuinfo(cpuinfo, "model name")
    return f"{' '.join(sorted(models)) or platform.machine()}, {os.cpu_count()} processors"


def products_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Measure matrix products of a model-like shape on one thread, in operations per second.

    The fastest product counts, as other programs only slow it down. On a CPU, thread time is
    measured, so that other programs do not favour one dtype.
    """
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    rows, inner, outer = GPU_PROBE if device.type == "cuda" else CPU_PROBE
    times: list[float] = []
    with one_thread():
        tokens = torch.ones(rows, inner, device=device, dtype=dtype)
        weight = torch.ones(inner, outer, device=device, dtype=dtype)
        product = torch.mm(tokens, weight)  # prepares the kernel
        while sum(times) < PROBE_SECONDS:
            start = clock()
            torch.mm(tokens, weight, out=product)
            product[0, 0].cpu()  # waits for a GPU
            times.append(clock() - start)
    return 2 * rows * weight.numel() / min(times)
