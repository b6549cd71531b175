"""What computes at loopback vendors of steps: arithmetic that a test can follow, or a real model.

Both are a `Computing`. A state is what a checkpoint holds; it is never changed in place.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from unitune.testing.vendor_setup import RoutedVendor, ServerBehavior


class Datum(NamedTuple):
    """A sequence with the inputs of its loss."""

    ids: list[int]
    targets: list[int]
    inputs: dict[str, list[float]]


class Answered(NamedTuple):
    """A sampled answer."""

    ids: list[int]
    logprobs: list[float]
    stopped: bool


class Computing(Protocol):
    """The arithmetic behind one training run."""

    def forward_backward(
        self, data: Sequence[Datum], loss: str, config: dict[str, float], *, only_forward: bool
    ) -> list[list[float]]: ...

    def step(self, params: dict[str, float]) -> None: ...

    def state(self) -> Any: ...

    def load(self, state: Any) -> None: ...

    def prompt_logprobs(self, state: Any, ids: Sequence[int]) -> list[float | None]: ...

    def sample(
        self, state: Any, ids: Sequence[int], count: int, params: dict[str, Any]
    ) -> list[Answered]: ...


@dataclass
class Arithmetic:
    """Losses that fall with each step, and a digest of everything that was learnt, in order."""

    steps: int = 0
    digest: str = ""
    pending: list[str] = field(default_factory=list[str])

    def forward_backward(
        self, data: Sequence[Datum], loss: str, config: dict[str, float], *, only_forward: bool
    ) -> list[list[float]]:
        if not only_forward:
            learnt = [[each.ids, each.targets] for each in data]
            self.pending.append(json.dumps([learnt, loss, config]))
        return [[-2.0 / (self.steps + 2)] * len(each.targets) for each in data]

    def step(self, params: dict[str, float]) -> None:
        text = "".join([self.digest, *self.pending, f"{params['learning_rate']:.12g}"])
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.steps, self.pending = self.steps + 1, []

    def state(self) -> Any:
        return (self.steps, self.digest)

    def load(self, state: Any) -> None:
        self.steps, self.digest = state
        self.pending = []

    def prompt_logprobs(self, state: Any, ids: Sequence[int]) -> list[float | None]:
        steps = state[0] if state else 0
        return [None, *[-2.0 / (steps + 2)] * (len(ids) - 1)]

    def sample(
        self, state: Any, ids: Sequence[int], count: int, params: dict[str, Any]
    ) -> list[Answered]:
        """Answer with a letter that depends on the seed and the place, and the end of a turn."""
        end, steps = int(params["stop"][0]), state[0] if state else 0
        letters = [33 + (params["seed"] + 13 * at + len(ids)) % 26 for at in range(count)]
        lone = params["max_tokens"] < 2
        return [
            Answered(
                ids := [letter] if lone else [letter, end], [-2 / (steps + 2)] * len(ids), not lone
            )
            for letter in letters
        ]


class StepsVendor(RoutedVendor):
    """A vendor of steps on loopback.

    Args:
        behavior: How it behaves.
        models: Names of base models with their longest sequence.
        compute: Makes what computes a training, from base model, rank and seed.
        prefix: Beginning of all paths.
    """

    def __init__(
        self,
        behavior: ServerBehavior | None = None,
        models: Mapping[str, int] | None = None,
        compute: Callable[[str, int, int], Computing] = lambda _base, _rank, _seed: Arithmetic(),
        prefix: str = "",
    ) -> None:
        super().__init__(behavior)
        self.prefix = prefix  # pyright: ignore[reportAttributeAccessIssue] - of this one
        self.models = dict(models or {})
        self.billed: list[tuple[str, str, int]] = []  # session, kind and tokens
        self.steps = 0
        self.before_step: Callable[[], None] = lambda: None
        self._compute = compute
        self._number = itertools.count(1)
        self._lock = threading.Lock()


class Real:
    """A model on this machine, with the adapters and optimiser of the local trainer."""

    def __init__(self, base: Path, rank: int, seed: int) -> None:
        import torch  # noqa: PLC0415 - only where a model computes
        from support.tiny_model import SETTINGS  # noqa: PLC0415

        from unitune_local.models.model import load_tokenizer  # noqa: PLC0415
        from unitune_local.training.run import trainable_model  # noqa: PLC0415

        settings = SETTINGS.model_copy(update={"rank": rank, "alpha": 32.0, "seed": seed})
        self.model = trainable_model(base, settings).eval()
        self.tokenizer = load_tokenizer(base)
        self.weights = [each for each in self.model.parameters() if each.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=0.0, fused=True)

    def _logprobs(self, ids: Sequence[int], targets: Sequence[int]) -> Any:
        import torch  # noqa: PLC0415

        logits = self.model(input_ids=torch.tensor([list(ids)])).logits[0].float()
        chosen = torch.tensor(list(targets))[:, None]
        return torch.log_softmax(logits, dim=-1).gather(1, chosen)[:, 0]

    def forward_backward(
        self, data: Sequence[Datum], loss: str, config: dict[str, float], *, only_forward: bool
    ) -> list[list[float]]:
        import torch  # noqa: PLC0415

        made: list[list[float]] = []
        with torch.set_grad_enabled(not only_forward):
            for each in data:
                now = self._logprobs(each.ids, each.targets)
                if not only_forward:
                    given = {name: torch.tensor(values) for name, values in each.inputs.items()}
                    _loss(loss, now, given, config).backward()
                made.append(now.tolist())
        return made

    def step(self, params: dict[str, float]) -> None:
        import torch  # noqa: PLC0415

        if params["grad_clip_norm"] > 0:
            torch.nn.utils.clip_grad_norm_(self.weights, params["grad_clip_norm"])
        for group in self.optimizer.param_groups:
            group["lr"], group["eps"] = params["learning_rate"], params["eps"]
            group["betas"] = (params["beta1"], params["beta2"])
            group["weight_decay"] = params["weight_decay"]
        cast("Any", self.optimizer).step()
        self.optimizer.zero_grad()

    def state(self) -> Any:
        return (
            [each.detach().clone() for each in self.weights],
            copy.deepcopy(self.optimizer.state_dict()),
        )

    def load(self, state: Any) -> None:
        weights, optimizer = state
        for each, value in zip(self.weights, weights, strict=True):
            each.data.copy_(value)
        self.optimizer.load_state_dict(copy.deepcopy(optimizer))

    def _at(self, state: Any) -> Any:
        """Return a context with the weights of a state; of the base, without one."""
        from contextlib import contextmanager  # noqa: PLC0415

        @contextmanager
        def at() -> Any:
            now = [each.data for each in self.weights]
            for each, value in zip(self.weights, state[0], strict=True):
                each.data = value
            try:
                yield
            finally:
                for each, value in zip(self.weights, now, strict=True):
                    each.data = value

        return at() if state else self.model.disable_adapter()

    def prompt_logprobs(self, state: Any, ids: Sequence[int]) -> list[float | None]:
        import torch  # noqa: PLC0415

        with torch.no_grad(), self._at(state):
            return [None, *self._logprobs(ids[:-1], ids[1:]).tolist()]

    def sample(
        self, state: Any, ids: Sequence[int], count: int, params: dict[str, Any]
    ) -> list[Answered]:
        import torch  # noqa: PLC0415

        from unitune_local.inference.answers import Sampling  # noqa: PLC0415
        from unitune_local.inference.generate import generate_in_training  # noqa: PLC0415

        settings = [
            Sampling(params["max_tokens"], params["temperature"], seed_of_place(params["seed"], at))
            for at in range(count)
        ]
        with torch.no_grad(), self._at(state):
            made = generate_in_training(self.model, self.tokenizer, [list(ids)] * count, settings)
            answers = list[Answered]()
            for one in made:
                whole = [*ids, *one.ids]
                logprobs = self._logprobs(whole[:-1], whole[1:])[len(ids) - 1 :].tolist()
                answers.append(Answered(one.ids, logprobs, one.finish_reason == "stop"))
        return answers


def seed_of_place(seed: int, place: int) -> int:
    """Return the seed of one of several answers to a request."""
    return (seed * 31 + place) % 2**31


def _loss(name: str, now: Any, given: dict[str, Any], config: dict[str, float]) -> Any:
    """Return a loss as the documentation of Tinker's losses defines it (a sum)."""
    import torch  # noqa: PLC0415

    if name == "cross_entropy":
        return -(now * given["weights"]).sum()
    ratio, gains = (now - given["logprobs"]).exp(), given["advantages"]
    if name == "importance_sampling":
        return -(ratio * gains).sum()
    low, high = config["clip_low_threshold"], config["clip_high_threshold"]
    if name == "ppo":
        return -torch.minimum(ratio * gains, ratio.clamp(low, high) * gains).sum()
    assert name == "cispo", name
    return -(ratio.clamp(low, high).detach() * now * gains).sum()
