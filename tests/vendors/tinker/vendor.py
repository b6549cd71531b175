"""Tinker on loopback: the SDK itself talks to it, in JSON and in protocol buffers.

Every request is read by the SDK's own request types, which refuse unknown fields, and every answer
is one of its response types. Sources: tinker 0.38.0 (``types/``, ``proto/``, ``resources/``);
agentscope-ai/TuFT 102eefd (requests in the order of their sequence numbers; a repeat has the first
one's result).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np
from pydantic import JsonValue
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Refused, existing, route
from vendors.bodies import chat_completion
from vendors.step_compute import Answered, Computing, Datum, StepsVendor
from vendors.tinker import KEY


def environment(url: str) -> dict[str, str]:
    """Return the environment of a backend that uses this double."""
    return {"TINKER_BASE_URL": url, "TINKER_API_KEY": KEY}


PROTO = "application/x-protobuf"
# US dollars per million tokens
PRICES = {
    "training": Decimal("0.44"),
    "sampling_prefill": Decimal("0.195"),
    "sampling_sample": Decimal("0.60"),
}
DTYPES = {pb.DTYPE_FLOAT32: np.float32, pb.DTYPE_INT64: np.int64}
STOPS = {True: pb.STOP_REASON_STOP, False: pb.STOP_REASON_LENGTH}


@dataclass
class Session:
    """A session."""

    id: str
    marks: dict[str, str]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: str | None = None
    runs: list[str] = field(default_factory=list[str])


@dataclass
class Run:
    """A training run, whose requests are worked off in order."""

    id: str
    session: str
    base: str
    rank: int
    computing: Computing
    marks: dict[str, Any]
    done: dict[int, str] = field(default_factory=dict[int, str])  # futures by sequence number


@dataclass
class Kept:
    """A checkpoint."""

    path: str
    run: str
    kind: str
    state: Any
    marks: dict[str, str] | None
    ttl: int | None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def shown(self) -> types.Checkpoint:
        """Return it as the API shows it."""
        expires = self.created + timedelta(seconds=self.ttl) if self.ttl else None
        return types.Checkpoint(
            checkpoint_id=self.path.partition("/")[2].partition("/")[2],
            checkpoint_type="training" if self.kind == "weights" else "sampler",
            time=self.created,
            tinker_path=self.path,
            size_bytes=1000,
            user_metadata=self.marks,
            expires_at=expires,
        )


class TinkerVendor(StepsVendor):
    """Tinker, with arithmetic or a real model."""

    key = KEY
    key_headers: ClassVar[Mapping[str, str]] = {"x-api-key": "", "authorization": "Bearer "}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.sessions: dict[str, Session] = {}
        self.runs: dict[str, Run] = {}
        self.kept: dict[str, Kept] = {}
        self.samplers: dict[str, tuple[str, str, Any]] = {}  # session, base and state
        self.futures: dict[str, Any] = {}
        self.refuses_sdk = False
        self.bill_is_behind = False
        self.lacks_credit = False
        self.pause_seconds = 3600  # that its SDK waits for credit
        self._bases: dict[str, Computing] = {}

    def billed_usd(self) -> Decimal:
        """Return the charge of everything."""
        return sum((PRICES[kind] * n / 1_000_000 for _, kind, n in self.billed), Decimal(0))

    def billed_tokens(self, kind: str = "training") -> int:
        """Return the tokens of a kind that were charged."""
        return sum(tokens for _, each, tokens in self.billed if each == kind)

    def error(self, refusal: Refused) -> JsonValue:
        """Return an error body as FastAPI writes it."""
        return {"detail": refusal.message}

    # The client and its session

    @route("POST", "/api/v1/client/config")
    def config(self, request: VendorRequest) -> VendorResponse:
        types.ClientConfigRequest.model_validate(request.json)
        if self.refuses_sdk:
            raise Refused(400, "Your Tinker SDK version is no longer supported. Please upgrade.")
        pause = self.pause_seconds
        return shown(types.ClientConfigResponse(billing_exception_max_pause_duration_sec=pause))

    @route("POST", "/api/v1/client/dynamic_config")
    def dynamic_config(self, request: VendorRequest) -> VendorResponse:
        types.ClientConfigRequest.model_validate(request.json)
        return shown(types.ClientDynamicConfigResponse())

    @route("GET", "/api/v1/get_server_capabilities")
    def capabilities(self, _: VendorRequest) -> VendorResponse:
        return shown(
            types.GetServerCapabilitiesResponse(
                supported_models=[
                    types.SupportedModel(
                        model_name=name, max_context_length=most, trainable=True, sampleable=True
                    )
                    for name, most in self.models.items()
                ]
            )
        )

    @route("POST", "/api/v1/create_session")
    def create_session(self, request: VendorRequest) -> VendorResponse:
        asked = types.CreateSessionRequest.model_validate(request.json)
        made = Session(f"session-{next(self._number)}", dict(asked.user_metadata or {}))
        self.sessions[made.id] = made
        return shown(types.CreateSessionResponse(session_id=made.id))

    @route("POST", "/api/v1/session_heartbeat")
    def heartbeat(self, request: VendorRequest) -> VendorResponse:
        self._session(types.SessionHeartbeatRequest.model_validate(request.json).session_id)
        return shown(types.SessionHeartbeatResponse())

    @route("POST", "/api/v1/sessions/{session_id}/finish")
    def finish(self, request: VendorRequest, session_id: str) -> VendorResponse:
        session = existing(self.sessions, session_id, "session")
        session.ended = session.ended or request.json["reason"]["type"]
        return VendorResponse(b"", 204)

    @route("POST", "/api/v1/sessions/search")
    def search(self, request: VendorRequest) -> VendorResponse:
        asked = types.SessionSearchRequest.model_validate(request.json)
        found = [
            each
            for each in reversed(self.sessions.values())
            if asked.user_metadata.items() <= each.marks.items()
        ]
        return shown(
            types.SessionSearchResponse(
                sessions=[
                    types.SessionSummary(
                        session_id=each.id,
                        created_at=each.created,
                        owner="own",
                        project_id="default",
                        checkpoints_count=sum(k.run in each.runs for k in self.kept.values()),
                        user_metadata=each.marks,
                    )
                    for each in found
                ]
            )
        )

    @route("GET", "/api/v1/sessions/{session_id}")
    def session(self, _: VendorRequest, session_id: str) -> VendorResponse:
        found = existing(self.sessions, session_id, "session")
        return shown(
            types.GetSessionResponse(
                training_run_ids=found.runs, sampler_ids=[], user_metadata=found.marks
            )
        )

    @route("GET", "/api/v1/training_runs/{run_id}/checkpoints")
    def checkpoints(self, _: VendorRequest, run_id: str) -> VendorResponse:
        existing(self.runs, run_id, "training run")
        found = [each.shown() for each in self.kept.values() if each.run == run_id]
        return shown(types.CheckpointsListResponse(checkpoints=found))

    @route("GET", "/api/v1/billing/usage/events")
    def bill(self, request: VendorRequest) -> VendorResponse:
        first, last = request.first("starting_on"), request.first("ending_before")
        asked = types.GetBillingUsageRequest.model_validate(
            {"starting_on": first, "ending_before": last}
        )
        edges = (asked.starting_on, asked.ending_before)
        if any((each.minute, each.second, each.microsecond) != (0, 0, 0) for each in edges):
            raise Refused(422, "starting_on and ending_before must be aligned to an hour")
        if asked.ending_before - asked.starting_on > timedelta(days=14):
            raise Refused(422, "the window must not be longer than 14 days")
        known = self.billed[:1] if self.bill_is_behind else self.billed
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        return shown(
            types.BillingUsageResponse(
                data=[self._event(*each, hour=hour) for each in known],
                sessions={
                    each.id: types.BillingUsageSession(user_metadata=each.marks)
                    for each in self.sessions.values()
                },
            )
        )

    def _event(self, session: str, kind: str, tokens: int, *, hour: datetime) -> Any:
        info: dict[str, Any] = {"type": kind, "token_count": tokens}
        info |= {"cached": False} if kind == "sampling_prefill" else {}
        return types.BillingUsageEvent.model_validate(
            {
                "bucket_start": hour,
                "bucket_end": hour + timedelta(hours=1),
                "session_id": session,
                "estimated_cost_usd": float(PRICES[kind] * tokens / 1_000_000),
                "effective_rate_usd_per_million_tokens": float(PRICES[kind]),
                "event_info": info,
            }
        )

    # Training runs

    @route("POST", "/api/v1/create_model")
    def create_model(self, request: VendorRequest) -> VendorResponse:
        asked = types.CreateModelRequest.model_validate(request.json)
        session = self._session(asked.session_id)
        if asked.base_model not in self.models:
            raise Refused(400, f"base model {asked.base_model} is not supported")
        config = asked.lora_config or types.LoraConfig(rank=32)
        if config.rank & (config.rank - 1):
            raise Refused(400, "rank must be a power of 2")
        run_id = f"{session.id}:train:{asked.model_seq_id}"
        if run_id not in self.runs:
            self._begin(run_id, session, asked.base_model, config, asked.user_metadata)
        return self._future(f"{run_id}:create", types.CreateModelResponse(model_id=run_id), run_id)

    def _begin(self, run_id: str, session: Session, base: str, config: Any, marks: Any) -> Run:
        computing = self._compute(base, config.rank, config.seed or 0)
        made = Run(run_id, session.id, base, config.rank, computing, dict(marks or {}))
        self.runs[run_id] = made
        session.runs.append(run_id)
        return made

    @route("POST", "/api/v1/get_info")
    def get_info(self, request: VendorRequest) -> VendorResponse:
        asked = types.GetInfoRequest.model_validate(request.json)
        run = existing(self.runs, asked.model_id, "training run")
        data = types.ModelData(arch="any", model_name=run.base, tokenizer_id=run.base)
        return shown(
            types.GetInfoResponse(
                model_data=data, model_id=run.id, is_lora=True, lora_rank=run.rank
            )
        )

    @route("POST", "/api/v1/forward_backward")
    def forward_backward(self, request: VendorRequest) -> VendorResponse:
        if request.headers.get("content-type") != PROTO:
            raise Refused(415, "forward_backward takes protocol buffers")
        asked = pb.ForwardBackwardRequest()
        asked.ParseFromString(request.body)

        def compute(run: Run) -> pb.ForwardBackwardOutput:
            data = [_datum(each) for each in asked.data]
            if (longest := max(len(each.ids) for each in data)) > self.models[run.base]:
                raise Refused(
                    400,
                    f"{longest} tokens are more than the context window of {self.models[run.base]}",
                )
            if not asked.forward_only:
                self.before_step()
            self._bill(run.session, "training", sum(len(each.ids) for each in data))
            made = run.computing.forward_backward(
                data, asked.loss_fn, dict(asked.loss_fn_config), only_forward=asked.forward_only
            )
            return _output(made, data)

        return self._work(asked.model_id, asked.seq_id, compute)

    @route("POST", "/api/v1/optim_step")
    def optim_step(self, request: VendorRequest) -> VendorResponse:
        asked = types.OptimStepRequest.model_validate(request.json)

        def step(run: Run) -> types.OptimStepResponse:
            run.computing.step(asked.optim_params.model_dump())
            self.steps += 1
            return types.OptimStepResponse()

        return self._work(asked.model_id, asked.seq_id, step)

    @route("POST", "/api/v1/save_weights")
    def save_weights(self, request: VendorRequest) -> VendorResponse:
        asked = types.SaveWeightsRequest.model_validate(request.json)

        def save(run: Run) -> types.SaveWeightsResponse:
            path = self._keep(run, "weights", asked, overwrite=asked.overwrite)
            return types.SaveWeightsResponse(path=path, type="save_weights")

        return self._work(asked.model_id, asked.seq_id, save)

    @route("POST", "/api/v1/save_weights_for_sampler")
    def save_for_sampler(self, request: VendorRequest) -> VendorResponse:
        asked = types.SaveWeightsForSamplerRequest.model_validate(request.json)

        def save(run: Run) -> types.SaveWeightsForSamplerResponseInternal:
            if asked.path is None:
                name = f"{run.session}:sample:{asked.sampling_session_seq_id}"
                self.samplers[name] = (run.session, run.base, run.computing.state())
                return types.SaveWeightsForSamplerResponseInternal(sampling_session_id=name)
            path = self._keep(run, "sampler_weights", asked, overwrite=False)
            return types.SaveWeightsForSamplerResponseInternal(path=path)

        return self._work(asked.model_id, asked.seq_id, save)

    @route("POST", "/api/v1/load_weights")
    def load_weights(self, request: VendorRequest) -> VendorResponse:
        asked = types.LoadWeightsRequest.model_validate(request.json)
        assert asked.session_id is not None, "only the newer form is used"
        session = self._session(asked.session_id)
        kept = existing(self.kept, asked.path, "checkpoint")
        if kept.kind != "weights":
            raise Refused(400, "sampler weights cannot be trained on")
        run_id = f"{session.id}:train:{asked.model_seq_id}"
        if run_id not in self.runs:
            before = self.runs[kept.run]
            config = types.LoraConfig(rank=before.rank)
            run = self._begin(run_id, session, before.base, config, asked.user_metadata)
            run.computing.load(kept.state)
        made = types.LoadWeightsResponse(path=asked.path, model_id=run_id)
        return self._future(f"{run_id}:load", made, run_id)

    def _keep(self, run: Run, kind: str, asked: Any, *, overwrite: bool) -> str:
        path = f"tinker://{run.id}/{kind}/{asked.path}"
        if path in self.kept and not overwrite:
            raise Refused(409, f"checkpoint {path} exists")
        state = run.computing.state()
        self.kept[path] = Kept(path, run.id, kind, state, asked.user_metadata, asked.ttl_seconds)
        return path

    def _work(self, run_id: str, number: int | None, work: Callable[[Run], Any]) -> VendorResponse:
        """Do the next piece of work of a run; a repeated one has the first one's result."""
        run = existing(self.runs, run_id, "training run")
        self._session(run.session)
        if self.lacks_credit:
            raise Refused(402, "Your organization has no credit left.")
        assert number is not None
        if number not in run.done:
            if number != max(run.done, default=0) + 1:
                raise Refused(400, f"seq_id {number} is not the next one")
            if self.behavior.fails:
                made: Any = types.RequestFailedResponse(
                    error=self.behavior.fails, category=types.RequestErrorCategory.User
                )
            else:
                made = work(run)
            run.done[number] = f"{run_id}:{number}"
            self.futures[run.done[number]] = made
        return self._future(run.done[number], self.futures[run.done[number]], run_id)

    # Answers

    @route("POST", "/api/v1/create_sampling_session")
    def create_sampling_session(self, request: VendorRequest) -> VendorResponse:
        asked = types.CreateSamplingSessionRequest.model_validate(request.json)
        session = self._session(asked.session_id)
        name = f"{session.id}:sample:{asked.sampling_session_seq_id}"
        if asked.model_path is None:
            self.samplers[name] = (session.id, str(asked.base_model), None)
        else:
            kept = existing(self.kept, asked.model_path, "checkpoint")
            self.samplers[name] = (session.id, self.runs[kept.run].base, kept.state)
        return shown(types.CreateSamplingSessionResponse(sampling_session_id=name))

    @route("GET", "/api/v1/samplers/{name}")
    def sampler(self, _: VendorRequest, name: str) -> VendorResponse:
        base = existing(self.samplers, name, "sampler")[1]
        return shown(types.GetSamplerResponse(sampler_id=name, base_model=base))

    @route("POST", "/api/v1/asample")
    def asample(self, request: VendorRequest) -> VendorResponse:
        asked = types.SampleRequest.model_validate(request.json)
        session, base, state = existing(self.samplers, str(asked.sampling_session_id), "sampler")
        self._session(session)
        name = f"{asked.sampling_session_id}:{asked.seq_id}"
        if name not in self.futures:
            computing = self._computing(session, base)
            ids, params = asked.prompt.to_ints(), asked.sampling_params.model_dump()
            self._bill(session, "sampling_prefill", len(ids))
            made = pb.SampleResponse()
            if asked.prompt_logprobs:
                known = computing.prompt_logprobs(state, ids)
                values = [np.nan if each is None else each for each in known]
                made.prompt_logprobs = np.asarray(values, np.float32).tobytes()
                answers = [Answered([ids[-1]], [0.0], stopped=False)]
            else:
                answers = computing.sample(state, ids, asked.num_samples, params)
                self._bill(session, "sampling_sample", sum(len(each.ids) for each in answers))
            for each in answers:
                made.sequences.add(
                    stop_reason=STOPS[each.stopped],
                    tokens=np.asarray(each.ids, np.int32).tobytes(),
                    logprobs=np.asarray(each.logprobs, np.float32).tobytes(),
                )
            self.futures[name] = made
        ids = [f"{name}:{at}" for at in range(asked.num_samples)]
        return shown(types.UntypedAPIFuture(request_id=name, sample_sequence_ids=ids))

    def _computing(self, session: str, base: str) -> Computing:
        own = [run.computing for run in self.runs.values() if run.session == session]
        if own:
            return own[-1]
        if base not in self._bases:
            self._bases[base] = self._compute(base, 16, 0)
        return self._bases[base]

    @route("POST", "/api/v1/retrieve_future")
    def retrieve(self, request: VendorRequest) -> VendorResponse:
        asked = types.FutureRetrieveRequest.model_validate(request.json)
        made = existing(self.futures, asked.request_id, "request")
        if isinstance(made, pb.ForwardBackwardOutput | pb.SampleResponse):
            if PROTO not in request.headers.get("accept", ""):
                raise Refused(406, "this result is a protocol buffer")
            return VendorResponse(made.SerializeToString(), headers={"Content-Type": PROTO})
        return shown(made)

    @route("POST", "/oai/api/v1/chat/completions")
    def chat(self, request: VendorRequest) -> JsonValue:
        """Answer for a base model, or for sampler weights by their path."""
        body = request.json
        model = str(body["model"])
        if model in self.models:
            return chat_completion(body, "yes")
        if existing(self.kept, model, "model").kind != "sampler_weights":
            raise Refused(400, f"{model} are no sampler weights")
        question = str(body["messages"][-1]["content"])
        return chat_completion(body, self.behavior.replies.get(question, self.behavior.otherwise))

    def _session(self, session_id: str) -> Session:
        session = existing(self.sessions, session_id, "session")
        if session.ended:
            raise Refused(410, f"session {session_id} has finished")
        return session

    def _future(self, name: str, made: Any, run_id: str | None) -> VendorResponse:
        self.futures[name] = made
        return shown(types.UntypedAPIFuture(request_id=name, model_id=run_id))

    def _bill(self, session: str, kind: str, tokens: int) -> None:
        self.billed.append((session, kind, tokens))


def shown(made: Any) -> VendorResponse:
    """Return an answer of the SDK's own type as JSON."""
    return VendorResponse(made.model_dump(mode="json"))


def _datum(given: pb.Datum) -> Datum:
    ids = [
        int(token)
        for chunk in given.model_input
        for token in np.frombuffer(chunk.encoded_text.tokens, np.int32)
    ]
    inputs = {
        name: np.frombuffer(each.dense, DTYPES[each.dtype]).tolist()
        for name, each in given.loss_fn_inputs.items()
    }
    targets = [int(each) for each in inputs.pop("target_tokens")]
    if any(len(each) != len(ids) for each in (targets, *inputs.values())):
        raise Refused(400, "inputs of the loss must be as long as the input of the model")
    return Datum(ids, targets, inputs)


def _output(made: list[list[float]], data: list[Datum]) -> pb.ForwardBackwardOutput:
    weights = [each.inputs.get("weights", [1.0] * len(each.targets)) for each in data]
    loss = -sum(
        a * w for lps, ws in zip(made, weights, strict=True) for a, w in zip(lps, ws, strict=True)
    )
    offsets = np.cumsum([0, *(4 * len(each) for each in made)]).astype(np.int64)
    flat = np.asarray([value for each in made for value in each], np.float32)
    output = pb.ForwardBackwardOutput(
        loss_fn_output_type="ArrayRecord", metrics={"loss:sum": float(loss)}
    )
    record = output.loss_fn_outputs.add(num_datums=len(made))
    record.fields["logprobs"].dtype = pb.DTYPE_FLOAT32
    record.fields["logprobs"].data = flat.tobytes()
    record.fields["logprobs"].offsets = offsets.tobytes()
    return output
