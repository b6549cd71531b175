from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_model import SETTINGS

from unitune.errors import JobError
from unitune_local import machine
from unitune_local.training import run
from unitune_local.training.worker import environment


def group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")).write_text(text)


def membership(tmp_path: Path, text: str) -> Path:
    own = tmp_path / "cgroup"
    own.write_text(text, encoding="utf-8")
    return own


def test_a_version_2_quota_counts_in_cores_on_every_level(tmp_path: Path) -> None:
    root = tmp_path / "root"
    group(root, "pod", cpu_max="150000 100000\n")
    group(root, "pod/container", cpu_max="max 100000\n")
    own = membership(tmp_path, "0::/pod/container\n")
    assert machine._quotas(root, own) == [1.5]


def test_a_version_1_quota_counts_in_cores(tmp_path: Path) -> None:
    root = tmp_path / "root"
    group(root, "cpu,cpuacct/box", cpu_cfs_quota_us="200000\n", cpu_cfs_period_us="100000\n")
    group(root, "cpu,cpuacct", cpu_cfs_quota_us="-1\n", cpu_cfs_period_us="100000\n")
    own = membership(tmp_path, "5:memory:/box\n4:cpu,cpuacct:/box\n")
    assert machine._quotas(root, own) == [2.0]


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert machine._quotas(tmp_path, tmp_path / "none") == []


def test_the_least_of_affinity_quota_and_wish_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(machine, "_affinity", lambda: 8)
    monkeypatch.setattr(machine, "_quotas", lambda: [2.5])
    assert machine.cores() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert machine.cores() == 1
    monkeypatch.setattr(machine, "_quotas", lambda: [0.5])
    assert machine.cores() == 1, "less than a core still runs one thread"


def test_cores_are_never_more_than_the_process_may_use() -> None:
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu sse avx512_bf16 x\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx512f\nmodel name: bf16\n", False),
    ],
)
def test_bfloat16_is_read_from_the_processors_flags(
    tmp_path: Path, text: str, *, expected: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    assert expected == machine._cpu_has_bfloat16(tmp_path / "cpuinfo")
    assert not machine._cpu_has_bfloat16(tmp_path / "none")


def test_a_processor_without_bfloat16_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpu_has_bfloat16", lambda: False)
    assert torch.float32 == machine.best_dtype.__wrapped__(torch.device("cpu"))


@pytest.mark.parametrize("faster", [torch.float32, torch.bfloat16])
def test_a_processor_with_bfloat16_gets_what_measures_faster(
    monkeypatch: pytest.MonkeyPatch, faster: torch.dtype
) -> None:
    monkeypatch.setattr(machine, "_cpu_has_bfloat16", lambda: True)
    rates = {torch.float32: 2.0, torch.bfloat16: 3.0 if faster is torch.bfloat16 else 1.0}
    monkeypatch.setattr(machine, "products_per_second", lambda _device, dtype: rates[dtype])
    assert faster == machine.best_dtype.__wrapped__(torch.device("cpu"))


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)],
)
def test_a_gpu_that_emulates_bfloat16_gets_float16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype
) -> None:
    """`torch.cuda.is_bf16_supported` counts emulation as support."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert expected == machine.best_dtype.__wrapped__(torch.device("cuda"))


@pytest.mark.parametrize(
    ("name", "build", "said"),
    [
        ("cuda", None, "is a build without CUDA"),
        ("cuda", "12.8", "no such GPU is visible here"),
        ("mps", None, "no such GPU is visible here"),
    ],
)
def test_a_device_that_is_not_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, build: str | None, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    with pytest.raises(JobError, match=f"options.local.device is {name}, but .*{said}"):
        machine.chosen_device(name)


def test_memory_of_a_gpu_grows_in_segments_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    assert environment(1)["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    assert environment(1)["PYTORCH_ALLOC_CONF"] == "max_split_size_mb:64"


def test_the_probe_measures_both_dtypes() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert machine.products_per_second(torch.device("cpu"), dtype) > 1e6


def test_other_devices_than_cuda_and_cpu_compute_in_float32() -> None:
    assert torch.float32 == machine.best_dtype.__wrapped__(torch.device("mps"))


AGAIN_AND_AGAIN = """
import resource, torch
def faults():
    torch.ones(2**24)  # 64 MiB, larger than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
print(faults() - first)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_a_training_keeps_the_memory_that_it_has_been_given() -> None:
    faults = subprocess.run(
        [sys.executable, "-c", AGAIN_AND_AGAIN],
        env=environment(threads=1),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(faults.stdout) < 2**26 // resource.getpagesize() / 10


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"device": "cuda"}, False),
        ({"device": "cuda", "deterministic": True}, True),
        ({"device": "cpu"}, True),
    ],
)
def test_gpu_kernels_are_deterministic_where_a_job_asks_for_it(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, expected: bool
) -> None:
    modes = list[bool]()

    def note(*, mode: bool, warn_only: bool) -> None:
        modes.append(mode and warn_only)

    monkeypatch.setattr(run, "load_model", lambda *_, **__: None)
    monkeypatch.setattr(run, "trained_model", lambda *_: None)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", note)
    run.trainable_model(Path("base"), SETTINGS.model_copy(update=changes))
    assert modes == [expected]
