"""Coordinate the processes of one training: shares of rows, sums and common decisions.

Every rank has the whole model and its optimiser. It computes the gradient of its share of a step,
divided by the weight of the whole step; the gradients are added, and each rank makes the same step.
Figures that decide what follows are gathered first. Values are sent as JSON, never as pickles.

The frozen layers of a base can be spread over the processes with FSDP2. A layer is gathered when it
is computed, forward and backward. Adapters, embeddings and output head stay whole in every process.
All processes gather a layer together, so they have to compute equally often
(`Ranks.computes_together`).

Source: docs.pytorch.org, torch.distributed.fsdp.fully_shard; tried with torch 2.13.0.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from unitune.backends.launched import rank_and_size
from unitune.errors import UnituneError
from unitune.findings import Finding, error, warning
from unitune_local.data.batches import TrainingRow, shares, spread_rows
from unitune_local.machine import cores
from unitune_local.parallel.processes import RankLost
from unitune_local.settings import Settings

T = TypeVar("T")
# In errors of torch.distributed; gathering a layer raises them in the middle of a step
CONNECTION = re.compile(r"Dist\w*Error|gloo|NCCL|process ?group|(?:File|TCP)Store", re.IGNORECASE)

CPU = torch.device("cpu")
# Torch's own limit for gloo. A process that ends is noticed at once, one that hangs after this
# time. The longest wait is for a scorer that the first rank runs over all validation rows.
SILENT_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Ranks:
    """The process group of a training; without one, this process trains alone."""

    group: dist.ProcessGroup | None = None
    device: torch.device = CPU  # of exchanged tensors
    # All have to compute equally often, as each has a part of the base (see `sharding`)
    computes_together: bool = False

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return 0 if self.group is None else self.group.rank()

    @property
    def size(self) -> int:
        """Number of processes."""
        return 1 if self.group is None else self.group.size()

    @property
    def is_first(self) -> bool:
        """True in the process that writes the files of the training."""
        return self.rank == 0

    def shares(self, rows: Sequence[TrainingRow]) -> list[list[TrainingRow]]:
        """Return the rows of each rank."""
        return spread_rows(rows, self.size)

    def share(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """Return the rows of this rank."""
        return self.shares(rows)[self.rank]

    def spread(
        self, lengths: Sequence[int], compute: Callable[[Sequence[int]], Sequence[T]]
    ) -> list[T]:
        """Compute a JSON value for each place, every rank those of its share, balanced by lengths.

        Where ranks compute together, each computes all, as places may take different numbers of
        passes.
        """
        if self.computes_together:
            return self.gather([*compute(range(len(lengths)))])[0]
        places = shares(lengths, self.size)
        parts = self.gather([*compute(places[self.rank])])
        values = {
            place: value
            for share, part in zip(places, parts, strict=True)
            for place, value in zip(share, part, strict=True)
        }
        return [values[place] for place in range(len(lengths))]

    def gather(self, value: T) -> list[T]:
        """Return the value of each rank, as read from JSON, in every rank; raises RankLost."""
        if self.group is None:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [int(size) for size in self._gathered(torch.tensor([len(text)]))]
        padded = nn.functional.pad(text, (0, max(sizes) - len(text)))
        texts = zip(self._gathered(padded), sizes, strict=True)
        return [json.loads(part.cpu().numpy().tobytes()[:size]) for part, size in texts]

    def first(self, make: Callable[[], T]) -> T:
        """Return the first rank's result, in every rank."""
        return self.gather(make() if self.is_first else cast("T", None))[0]

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Return the sums of all ranks' figures by name."""
        parts = self.gather(dict(figures))
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: sum(part.get(name, 0.0) for part in parts) for name in names}

    def add_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Make each rank's gradients the sum of all ranks'; raises RankLost."""
        if self.group is None:
            return
        learnt = [*weights]
        parts = [torch.zeros_like(each) if each.grad is None else each.grad for each in learnt]
        total = torch.cat([part.flatten() for part in parts])
        with noticing_loss():
            cast("Any", dist).all_reduce(total, group=self.group)
        at = 0
        for weight in learnt:
            weight.grad = total[at : (at := at + weight.numel())].view_as(weight)

    def _gathered(self, tensor: Tensor) -> list[Tensor]:
        own = tensor.to(self.device)
        every = [torch.empty_like(own) for _ in range(self.size)]
        with noticing_loss():
            cast("Any", dist).all_gather(every, own, group=self.group)
        return every


ALONE = Ranks()


@contextmanager
def joined(rendezvous: object, rank: int, settings: Settings) -> Generator[Ranks]:
    """Join the other processes, and leave them at the end. On cuda, each rank has its own GPU.

    Args:
        rendezvous: Path of a new file that only the user may read, or the store of
            `launched_store`.
        rank: Rank of this process.
        settings: Number of processes, and their device.

    Raises:
        RankLost: A process does not join.
    """
    size, device = settings.processes, settings.device
    if size == 1:
        yield ALONE
        return
    store, where = rendezvous, CPU
    if isinstance(store, Path):
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        os.environ |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
        store = cast("Any", dist).FileStore(str(store), size)
    if device == "cuda":  # Slurm may show each process its own GPU alone
        own = int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count()
        torch.cuda.set_device(where := torch.device(device, own))
    with noticing_loss():
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=cast("Any", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=SILENT_SECONDS),
        )
    yield Ranks(dist.group.WORLD, where, computes_together=bool(settings.shard))
    dist.destroy_process_group()  # not after an error: it would wait for the others


def launched_store(folder: Path | None = None) -> tuple[object, Path]:
    """Meet the processes that torchrun or srun started, in the folder that the first one names.

    Raises:
        RankLost: The first one does not come.
    """
    with noticing_loss():
        wait = timedelta(seconds=SILENT_SECONDS)
        store = next(cast("Any", dist).rendezvous("env://", timeout=wait))[0]
        if folder is not None:
            store.set("folder", str(folder))
        return store, Path(store.get("folder").decode())


def process_findings(settings: Settings) -> Iterator[Finding]:
    """Yield findings if so many processes cannot train here, or would not be faster."""
    count, device, own = settings.processes, settings.device, rank_and_size() is None
    setting = f"options.local.processes is {count}, but"
    if device == "mps" and count > 1:
        fix = "Leave it out, or set options.local.device to cpu."
        yield error("processes", f"{setting} mps is a single GPU for one process.", fix)
    elif own and device == "cuda" and count > (gpus := torch.cuda.device_count()):
        fix = f"Set it to at most {gpus}, or leave it out."
        yield error("processes", f"{setting} only {gpus} GPUs are available, one for each.", fix)
    elif count > settings.batch_size:
        what = f"{setting} tuning.batch_size is {settings.batch_size}, so some would have no rows."
        yield warning("processes", what, "Lower it, or raise tuning.batch_size.")
    elif own and device == "cpu" and count > cores():
        what = f"{setting} only {cores()} cores are available; they would wait for each other."
        yield warning("processes", what, "Lower it.")


@contextmanager
def noticing_loss() -> Generator[None]:
    """Turn errors of the connection to other processes into RankLost."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, UnituneError) or not CONNECTION.search(f"{type(error)} {error}"):
            raise
        raise RankLost(
            f"the connection to another process of the training was lost ({error})"
        ) from error


def shard(model: PeftModel, dtype: torch.dtype, ranks: Ranks) -> None:
    """Keep only this rank's part of each layer's frozen weights.

    The model has adapters and is on the CPU, in its file's dtype, and is read a layer at a time.
    """
    mesh = DeviceMesh.from_group(cast("Any", ranks.group), ranks.device.type)
    base = model.get_base_model()
    whole = set(base.parameters())
    for layer in layers(base):
        frozen = {weight for weight in layer.parameters() if not weight.requires_grad}
        whole -= frozen
        _place(frozen, ranks.device, dtype, copy=False)
        fully_shard(layer, mesh=mesh, ignored_params=set(layer.parameters()) - frozen)
    # A copy, because one tensor of a mapped file keeps all its read pages in memory.
    _place({weight for weight in whole if not weight.requires_grad}, ranks.device, dtype, copy=True)
    for weight in whole:
        weight.data = weight.data.to(ranks.device)
    for buffer in base.buffers():
        buffer.data = buffer.data.to(ranks.device)
    fully_shard(base, mesh=mesh, ignored_params=whole)
    cast("Any", base).config.dtype = dtype


def layers(base: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a model, which are gathered one at a time."""
    return (each for each in base.modules() if isinstance(each, GradientCheckpointingLayer))


def shard_findings(settings: Settings) -> Iterator[Finding]:
    """Yield errors for settings that rule out spreading the base."""
    if not settings.shard:
        return
    if settings.processes == 1:
        what = "options.local.shard is true, but a single process would keep all weights."
        yield error("shard", what, "Set options.local.processes, or leave shard out.")
    if settings.quantization is not None:
        what = (
            f"options.local.shard is true, but the {settings.quantization} weights of "
            "bitsandbytes cannot be split."
        )
        yield error("shard", what, "Leave out one of the two.")


def _place(
    weights: set[nn.Parameter], device: torch.device, dtype: torch.dtype, *, copy: bool
) -> None:
    for weight in weights:
        weight.data = weight.data.to(device, dtype, copy=copy)
