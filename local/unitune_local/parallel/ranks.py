"""The processes of one training, as each of them sees the others: who does what, and what is added.

Every rank has the whole model with its optimiser and knows all rows. It computes the gradient of
its share of a step, already divided by the weight of the whole step; the gradients are added up,
and each rank makes the same optimiser step. Whatever decides what comes next (a stop, the loss of
an evaluation) is gathered first, so that all decide alike. The first rank alone writes files.

Values travel as JSON, never as pickles. Starting processes is not here:
`unitune_local.parallel.processes` does so on one machine. Whoever has made a process group by other
means makes `Ranks` of it.
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
from torch import Tensor, nn

from unitune.backends.launched import rank_and_size
from unitune.errors import UnituneError
from unitune.findings import Finding, error, warning
from unitune_local.data.batches import TrainingRow, shares, spread_rows
from unitune_local.machine import cores
from unitune_local.parallel.processes import RankLost
from unitune_local.settings import Settings

T = TypeVar("T")
# In errors of torch.distributed: a layer that is gathered raises them in the midst of a step
CONNECTION = re.compile(r"Dist\w*Error|gloo|NCCL|process ?group|(?:File|TCP)Store", re.IGNORECASE)

CPU = torch.device("cpu")
# Torch's own limit for gloo. A process that has ended is noticed at once; one that hangs, after
# this time. The longest wait is for a scorer that the first rank runs over all validation rows.
SILENT_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Ranks:
    """The process group of a training; without one, this process trains alone."""

    group: dist.ProcessGroup | None = None
    device: torch.device = CPU  # where tensors that are exchanged are to be
    # Whether all have to compute equally often, as each has a part of the base
    # (`unitune_local.parallel.sharding`)
    computes_together: bool = False

    @property
    def rank(self) -> int:
        """The place of this process, from 0."""
        return 0 if self.group is None else self.group.rank()

    @property
    def size(self) -> int:
        """How many processes there are."""
        return 1 if self.group is None else self.group.size()

    @property
    def is_first(self) -> bool:
        """Whether this process writes what the training leaves behind."""
        return self.rank == 0

    def shares(self, rows: Sequence[TrainingRow]) -> list[list[TrainingRow]]:
        """Return which rows each rank computes."""
        return spread_rows(rows, self.size)

    def share(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """Return which rows this rank computes."""
        return self.shares(rows)[self.rank]

    def spread(
        self, lengths: Sequence[int], compute: Callable[[Sequence[int]], Sequence[T]]
    ) -> list[T]:
        """Compute a value for each place, every rank those of its share.

        Where ranks compute together each computes all, as places need not take equally many passes.

        Args:
            lengths: Tokens at each place, by which the shares are made equal.
            compute: Returns the values for some places, as JSON has them.

        Returns:
            The values for all places, in their order.
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
        """Return the value of each rank, as JSON gives it back, in every rank.

        Raises:
            RankLost: Another process is gone.
        """
        if self.group is None:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [int(size) for size in self._gathered(torch.tensor([len(text)]))]
        padded = nn.functional.pad(text, (0, max(sizes) - len(text)))
        texts = zip(self._gathered(padded), sizes, strict=True)
        return [json.loads(part.cpu().numpy().tobytes()[:size]) for part, size in texts]

    def first(self, make: Callable[[], T]) -> T:
        """Return what the first rank makes, in every rank."""
        return self.gather(make() if self.is_first else cast("T", None))[0]

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Return the sums of all ranks' figures by name."""
        parts = self.gather(dict(figures))
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: sum(part.get(name, 0.0) for part in parts) for name in names}

    def add_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Make each rank's gradients the sum of all ranks'.

        Raises:
            RankLost: Another process is gone.
        """
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
    """Meet the other processes, and part from them at the end.

    Args:
        rendezvous: Path of a new file that only the user may read, or `launched_store`'s store.
        rank: The place of this process.
        settings: How many processes there are, and where: on cuda each rank has a GPU of its own.

    Raises:
        RankLost: One does not come.
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
    """Yield why so many processes cannot train here, or would not be faster."""
    count, device, own = settings.processes, settings.device, rank_and_size() is None
    setting = f"options.local.processes is {count}, and"
    if device == "mps" and count > 1:
        fix = "Leave it out, or set options.local.device to cpu."
        yield error("processes", f"{setting} mps is one GPU, which one process uses.", fix)
    elif own and device == "cuda" and count > (gpus := torch.cuda.device_count()):
        fix = f"Set it to at most {gpus}, or leave it out."
        yield error("processes", f"{setting} each needs a GPU of its own; there are {gpus}.", fix)
    elif count > settings.batch_size:
        what = f"{setting} tuning.batch_size is {settings.batch_size}: some would have no row."
        yield warning("processes", what, "Lower it, or raise tuning.batch_size.")
    elif own and device == "cpu" and count > cores():
        what = f"{setting} {cores()} cores are there: the processes would wait for each other."
        yield warning("processes", what, "Lower it.")


@contextmanager
def noticing_loss() -> Generator[None]:
    """Tell errors of the connection to other processes from those of the training itself.

    Raises:
        RankLost: Another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, UnituneError) or not CONNECTION.search(f"{type(error)} {error}"):
            raise
        raise RankLost(
            f"another process of the training is not heard any more ({error})"
        ) from error
