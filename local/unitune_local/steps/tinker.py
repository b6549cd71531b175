"""Train with Tinker's SDK: the adapter of Tinker, and of servers that speak its API.

Sources: tinker 0.38.0 (its types, ``lib/public_interfaces``); thinking-machines-lab/tinker-cookbook
9dfcc3a (inputs of the losses, clip thresholds as ratios).
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, cast

os.environ["TINKER_TELEMETRY"] = "0"  # read when the SDK makes a client

import tinker
from tinker import types

from unitune.backends.kit.errors import ErrorResponse, ErrorTable, Vendor, complaint
from unitune_local.steps import vendor
from unitune_local.steps.vendor import ADVICE, step_errors

KEY = "unitune"  # name of the launch key in user metadata
PAGE = 200  # sessions of a search
CANNOT_SEARCH = (404, 405)  # as some servers with Tinker's API answer
TTL_SECONDS = vendor.CHECKPOINT_DAYS * 24 * 3600


def _read(error: tinker.APIStatusError) -> ErrorResponse:
    words = complaint(error.body) if error.body else str(error)
    return ErrorResponse(error.status_code, error.response.headers, words)


ERRORS = ErrorTable(
    {tinker.APIStatusError: _read}, (tinker.APIConnectionError,), (tinker.TinkerError, ValueError)
)


class Tinker:
    """Tinker, for one training (`unitune_local.steps.vendor.StepVendor`)."""

    def __init__(self, contract: vendor.Contract, key: str | None) -> None:
        """Read nothing yet; the session begins with the first request that needs one."""
        self._contract = contract
        self._marks = {KEY: contract.key}
        self._vendor = Vendor("tinker", "TINKER_API_KEY", contract.url, ADVICE, secrets=(key,))
        # Named each time, because the SDK shares clients that were made without an address.
        self._url = contract.url or os.environ.get("TINKER_BASE_URL") or None
        self._key = key
        self._opened: tinker.ServiceClient | None = None
        # The SDK's clients: for training, and for sampling with the weights of now or of the base
        self._client: Any = None
        self._sampler: Any = None
        self._base: Any = None

    def find(self) -> vendor.Found:
        with self._errors("find what exists"):
            rest = tinker.RestClient(base_url=self._url, api_key=self._key)
            runs = list(self._runs(rest))
            found = [
                each for run in runs for each in rest.list_checkpoints(run).result().checkpoints
            ]
        saved = tuple(
            vendor.Saved(
                int(step[1]), (each.user_metadata or {}).get("position", ""), each.tinker_path
            )
            for each in found
            if each.checkpoint_type == "training"
            and (step := re.search(r"step-(\d+)$", each.checkpoint_id))
        )
        tuned = (each.tinker_path for each in found if each.checkpoint_type == "sampler")
        return vendor.Found(saved, next(tuned, None))

    def begin(self, start: vendor.Saved | None) -> None:
        base, rank, seed = self._contract.base, self._contract.rank, self._contract.seed
        with self._errors("begin to train"):
            if start is None:
                asked = self._service.create_lora_training_client(
                    base, rank=rank, seed=seed, train_unembed=False, user_metadata=self._marks
                )
            else:
                asked = self._service.create_training_client_from_state_with_optimizer(
                    start.ref, user_metadata=self._marks
                )
            self._client = asked.result()
        self._sampler = None

    def logprobs(self, traces: Sequence[vendor.Trace], *, of_base: bool = False) -> vendor.Logprobs:
        with self._errors("compute log-probabilities"):
            if not of_base:
                done = self._client.forward([_datum(trace) for trace in traces], "cross_entropy")
                return _logprobs(done.result())
            if self._base is None:
                base = self._contract.base
                self._base = self._service.create_sampling_client(base_model=base).result()
            asked = [self._base.compute_logprobs(_input(trace.ids)) for trace in traces]
            return [list(each.result()[1:]) for each in asked]

    def learn(
        self,
        traces: Sequence[vendor.Trace],
        loss: vendor.Loss,
        config: Mapping[str, float],
        adam: vendor.Adam,
    ) -> vendor.Logprobs:
        data = [_datum(trace, loss) for trace in traces]
        self._sampler = None
        with self._errors("make a training step"):
            # Both are sent before either is waited for, so that the server does them in one go.
            done = self._client.forward_backward(data, loss, dict(config) or None)
            stepped = self._client.optim_step(types.AdamParams(**asdict(adam)))
            made = _logprobs(done.result())
            stepped.result()
        return made

    def sample(self, prompts: Sequence[vendor.Prompt]) -> list[list[vendor.Sampled]]:
        with self._errors("sample answers"):
            if self._sampler is None:
                self._sampler = self._client.save_weights_and_get_sampling_client().result()
            asked = [
                self._sampler.sample(
                    _input(prompt.ids),
                    prompt.answers,
                    types.SamplingParams(
                        max_tokens=prompt.max_tokens,
                        temperature=prompt.temperature,
                        seed=prompt.seed % 2**31,  # some servers read 32 bits
                        stop=list(self._contract.stops),
                    ),
                )
                for prompt in prompts
            ]
            return [
                [
                    vendor.Sampled(list(each.tokens), list(each.logprobs))
                    for each in one.result().sequences
                ]
                for one in asked
            ]

    def save(self, step: int, position: str) -> vendor.Saved:
        name, marks = f"step-{step}", {**self._marks, "position": position}
        with self._errors(f"save the checkpoint of step {step}"):
            done = self._client.save_state(
                name, ttl_seconds=TTL_SECONDS, overwrite=True, user_metadata=marks
            )
            return vendor.Saved(step, position, done.result().path)

    def publish(self) -> str:
        with self._errors("save the model"):
            done = self._client.save_weights_for_sampler(
                self._contract.key, user_metadata=self._marks
            )
            return done.result().path

    def finish(self, word: Literal["success", "errored", "interrupted"]) -> None:
        if self._opened is not None:
            with self._errors("finish the session"):
                self._opened.close(word).result()

    def bill(self) -> vendor.Bill:
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        since, until = hour - timedelta(days=vendor.CHECKPOINT_DAYS), hour + timedelta(hours=1)
        with self._errors("read the bill"):
            admin = tinker.AdminClient(base_url=self._url, api_key=self._key)
            usage = admin.get_billing_usage(since, until).result()
        own = {
            session
            for session, about in usage.sessions.items()
            if self._marks.items() <= (about.user_metadata or {}).items()
        }
        events = [each for each in usage.data if each.session_id in own]
        infos = [each.event_info for each in events]
        tokens = sum(info.token_count for info in infos if info.type == "training")
        # Storage has no session, and saving has no price.
        costs = [each.estimated_cost_usd for each in events if each.event_info.type != "checkpoint"]
        known = [Decimal(str(cost)) for cost in costs if cost is not None]
        return vendor.Bill(sum(known, Decimal(0)) if len(known) == len(costs) else None, tokens)

    @property
    def _service(self) -> tinker.ServiceClient:
        if self._opened is None:
            # Without a display name, which servers with an older API refuse.
            self._opened = tinker.ServiceClient(self._marks, base_url=self._url, api_key=self._key)
        return self._opened

    def _runs(self, rest: tinker.RestClient) -> Generator[str]:
        asked = types.SessionSearchRequest(user_metadata=self._marks, limit=PAGE)
        search = cast("Any", rest).search_sessions
        try:
            while asked is not None:
                page = search(asked).result()
                for each in page.sessions:
                    yield from rest.get_session(each.session_id).result().training_run_ids
                cursor = page.next_cursor
                asked = asked.model_copy(update={"cursor": cursor}) if cursor else None
        except tinker.APIStatusError as error:
            if error.status_code not in CANNOT_SEARCH:
                raise
            for run in rest.list_training_runs(limit=PAGE).result().training_runs:
                if self._marks.items() <= (run.user_metadata or {}).items():
                    yield run.training_run_id

    @contextmanager
    def _errors(self, doing: str) -> Generator[None]:
        with step_errors(self._vendor, doing, ERRORS, _is_final), warnings.catch_warnings():
            warnings.simplefilter("ignore", tinker.ExperimentalWarning)  # of its search
            try:
                yield
            except ValueError as error:  # made of an answer to `retrieve_future`
                cause = error.__cause__
                raise cause if isinstance(cause, tinker.TinkerError) else error from error


def _is_final(cause: BaseException | None) -> bool:
    if isinstance(cause, tinker.RequestFailedError):
        return cause.category is types.RequestErrorCategory.User
    return isinstance(cause, tinker.BadRequestError | tinker.UnprocessableEntityError)


def _input(ids: Sequence[int]) -> types.ModelInput:
    return types.ModelInput.from_ints(list(ids))


def _datum(trace: vendor.Trace, loss: vendor.Loss = "cross_entropy") -> types.Datum:
    targets = list(trace.ids[1:])

    def numbers(values: Sequence[float]) -> types.TensorData:
        return types.TensorData(data=list(values), dtype="float32", shape=[len(targets)])

    inputs = {"target_tokens": types.TensorData(data=targets, dtype="int64", shape=[len(targets)])}
    if loss == "cross_entropy":
        inputs |= {"weights": numbers(trace.weights)}
    else:
        inputs |= {"logprobs": numbers(trace.sampled), "advantages": numbers(trace.weights)}
    return types.Datum(model_input=_input(trace.ids[:-1]), loss_fn_inputs=inputs)


def _logprobs(output: types.ForwardBackwardOutput) -> vendor.Logprobs:
    return [[float(each) for each in made["logprobs"].data] for made in output.loss_fn_outputs]
