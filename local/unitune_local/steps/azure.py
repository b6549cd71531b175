"""Train in Azure's sessions: the adapter of Microsoft Foundry's interactive training (preview).

Lists of sessions do not show their metadata, so checkpoints carry the launch key in their names.

Sources, besides those of `unitune_local.steps.foundry`: microsoft-foundry/fine-tuning efb53af,
interactive_training/docs/loss_functions.md (cross_entropy and importance_sampling are sums, without
limits on the weights) and its recipe of dpo (the reference is a session without a step).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Literal

from pydantic import JsonValue

from unitune.errors import BackendError
from unitune.security.json_fields import Fields
from unitune_local.steps import vendor
from unitune_local.steps.backend import AzureSessionsBackend
from unitune_local.steps.foundry import Body, Session, rank_of, training_checkpoints

KEY = "unitune"  # name of the launch key in user metadata
# Most of a request, as in the SDK: 1024 rows and about 5 MB, at up to 80 bytes per token
ROWS_TOGETHER, TOKENS_TOGETHER = 1024, 60_000
SAMPLED_TOGETHER = 8  # requests
ADAM = ("learning_rate", "beta1", "beta2", "eps", "weight_decay")  # Azure does not clip gradients


class AzureSessions:
    """Azure's sessions, for one training (`unitune_local.steps.vendor.StepVendor`)."""

    def __init__(self, contract: vendor.Contract, key: str | None) -> None:
        """Read nothing yet; the backend reads the key for each request, because tokens expire."""
        del key
        self._contract = contract
        self._final = f"{contract.key}-final"
        self._api = AzureSessionsBackend().vendor_api(contract.url)
        self._session: Session | None = None
        self._base: Session | None = None  # without a step, so that its adapter changes nothing
        self._saved = set[str]()  # names of checkpoints of the session
        # Sampler checkpoints with the weights of now, by session, and their number
        self._samplers: dict[str, str] = {}
        self._refreshes = 0
        self._lock = threading.Lock()

    def find(self) -> vendor.Found:
        saved, model = dict[int, vendor.Saved](), None
        for session, name in training_checkpoints(self._api, self._contract.base):
            ref = f"{session}/{name}"
            if step := re.fullmatch(rf"{re.escape(self._contract.key)}-step-(\d+)", name):
                # Azure returns no data of ours, so the position is in the training's folder.
                saved[int(step[1])] = vendor.Saved(int(step[1]), "", ref)
            elif name == self._final:
                model = ref
        return vendor.Found(tuple(saved.values()), model)

    def begin(self, start: vendor.Saved | None) -> None:
        self.finish("interrupted")
        self._session = self._open(start)
        self._saved.clear()

    def logprobs(self, traces: Sequence[vendor.Trace], *, of_base: bool = False) -> vendor.Logprobs:
        if not of_base:
            return self._pass("forward", traces, "cross_entropy", {}, repeats=True)
        if self._base is None:
            self._base = self._open(None)
        asked = [vendor.Prompt(trace.ids, 1, 1, 1.0, 0) for trace in traces]
        made = self._samples(self._base, asked, {"prompt_logprobs": True})
        return [_numbers(each.values("prompt_logprobs")[1:]) for each in made]

    def learn(
        self,
        traces: Sequence[vendor.Trace],
        loss: vendor.Loss,
        config: Mapping[str, float],
        adam: vendor.Adam,
    ) -> vendor.Logprobs:
        self._samplers.pop(self._now.id, None)
        made = self._pass("forward_backward", traces, loss, config)
        self._now.do("optim_step", {"adam_params": {name: getattr(adam, name) for name in ADAM}})
        return made

    def sample(self, prompts: Sequence[vendor.Prompt]) -> list[list[vendor.Sampled]]:
        return [
            [
                vendor.Sampled(
                    [int(each) for each in _numbers(one.values("tokens"))],
                    _numbers(one.values("logprobs")),
                )
                for one in made.items("sequences")
            ]
            for made in self._samples(self._now, prompts, {})
        ]

    def save(self, step: int, position: str) -> vendor.Saved:
        name = f"{self._contract.key}-step-{step}"
        if name not in self._saved:  # otherwise only the position has changed
            self._now.do("checkpoint", {"path": name, "step_number": step})
            self._saved.add(name)
        return vendor.Saved(step, position, f"{self._now.source}/{name}")

    def publish(self) -> str:
        self._now.do("checkpoint", {"path": self._final})
        return f"{self._now.source}/{self._final}"

    def finish(self, word: Literal["success", "errored", "interrupted"]) -> None:
        del word
        opened, self._session, self._base = (self._session, self._base), None, None
        for session in filter(None, opened):
            with suppress(BackendError):  # it ends some time after its last heartbeat
                session.close()

    def bill(self) -> vendor.Bill:
        return vendor.Bill()  # the API has none

    @property
    def _now(self) -> Session:
        assert self._session is not None, "begin comes first"
        return self._session

    def _open(self, start: vendor.Saved | None) -> Session:
        contract, rank = self._contract, self._contract.rank
        body: Body = {"type": "training", "base_model": contract.base}
        if start is not None:
            source, _, name = start.ref.partition("/")
            rank = rank_of(self._api, source, name) or rank
            body["from_checkpoint"] = {"source_session_id": source, "checkpoint_id": name}
        if contract.tier:
            body["training_type"] = contract.tier
        body |= {
            "lora_config": {"rank": rank, "seed": contract.seed},
            "user_metadata": {KEY: contract.key},
        }
        return Session.open(self._api, body)

    def _pass(
        self,
        verb: Literal["forward", "forward_backward"],
        traces: Sequence[vendor.Trace],
        loss: vendor.Loss,
        config: Mapping[str, float],
        *,
        repeats: bool = False,
    ) -> vendor.Logprobs:
        """Compute rows, in as many requests as Azure needs; their gradients add up."""
        found: vendor.Logprobs = []
        for some in _requests(traces):
            given: Body = {"data": [_datum(trace, loss) for trace in some], "loss_fn": loss}
            if config:
                given["loss_fn_config"] = dict(config)
            done = self._now.do(verb, {f"{verb}_input": given}, repeats=repeats)
            outputs = done.items("loss_fn_outputs")
            found += [_numbers(each.fields("logprobs").values("data")) for each in outputs]
        if [len(each) for each in found] != [len(trace.ids) - 1 for trace in traces]:
            raise BackendError("azure-sessions returned log-probabilities of other tokens.")
        return found

    def _samples(
        self, session: Session, prompts: Sequence[vendor.Prompt], more: Mapping[str, JsonValue]
    ) -> list[Fields]:
        with self._lock:
            if session.id not in self._samplers:
                self._refreshes += 1
                # With both numbers, weights are only refreshed. Azure may not return the name.
                body: Body = {"seq_id": self._refreshes, "sampling_session_seq_id": 0}
                done = session.do("checkpoint_sample", body)
                own = f"ss0_seq{self._refreshes}"
                self._samplers[session.id] = done.text("checkpoint_id") or own
            sampler = self._samplers[session.id]

        def ask(prompt: vendor.Prompt) -> Fields:
            body = {**_sample_body(prompt, self._contract.stops), **more}
            return session.do("sample", body, {"checkpoint_id": sampler}, repeats=True)

        with ThreadPoolExecutor(SAMPLED_TOGETHER) as pool:
            asked = [pool.submit(copy_context().run, ask, prompt) for prompt in prompts]
            return [each.result() for each in asked]


def _requests(traces: Sequence[vendor.Trace]) -> Iterator[list[vendor.Trace]]:
    some, tokens = list[vendor.Trace](), 0
    for trace in traces:
        if some and (len(some) == ROWS_TOGETHER or tokens + len(trace.ids) > TOKENS_TOGETHER):
            yield some
            some, tokens = [], 0
        some.append(trace)
        tokens += len(trace.ids)
    yield some


def _datum(trace: vendor.Trace, loss: vendor.Loss) -> Body:
    inputs: dict[str, Sequence[float]] = {"target_tokens": trace.ids[1:]}
    if loss == "cross_entropy":
        inputs["weights"] = trace.weights
    else:
        ones = [1.0] * (len(trace.ids) - 1)
        inputs |= {"weights": ones, "advantages": trace.weights, "logprobs": trace.sampled}
    return {
        "model_input": _input(trace.ids[:-1]),
        "loss_fn_inputs": {name: {"data": list(values)} for name, values in inputs.items()},
    }


def _input(ids: Sequence[int]) -> Body:
    return {"chunks": [{"type": "text", "tokens": list(ids)}]}


def _sample_body(prompt: vendor.Prompt, stops: Sequence[int]) -> Body:
    return {
        "num_samples": prompt.answers,
        "prompt": _input(prompt.ids),
        "sampling_params": {
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "top_p": 1.0,
            "top_k": -1,
            "seed": prompt.seed % 2**31,
            "stop_criteria": list(stops),
        },
        "topk_prompt_logprobs": 0,
    }


def _numbers(values: Sequence[JsonValue]) -> list[float]:
    return [float(each) for each in values if isinstance(each, int | float)]
