"""Microsoft Foundry's interactive training on loopback: sessions, operations and checkpoints.

Every request is held to the fields of azure-ai-finetuningsessions 1.0.0b1 (`FIELDS`), which
tests/unit/local/test_steps_azure.py compares with the package. Sources: that package; its cookbook,
microsoft-foundry/fine-tuning, interactive_training/docs (loss functions; sessions; checkpoints).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Refused, existing, route
from vendors.openai.azure import ENTRA_TOKEN
from vendors.step_compute import Computing, Datum, StepsVendor

KEY = "azure-loopback-key"


def environment(url: str) -> dict[str, str]:
    """Return the environment of a backend that uses this double."""
    return {"AZURE_AI_PROJECT_ENDPOINT": url, "AZURE_AI_API_KEY": KEY}


SESSIONS = "/fine_tuning/sessions"
OPERATION = SESSIONS + "/{session_id}"
# Fields of each model of the SDK; those with a mark may be left out
FIELDS: dict[str, str] = {
    "CreateSessionRequest": (
        "type base_model lora_config user_metadata? ejectable? training_type? from_checkpoint?"
    ),
    "LoRAConfig": "rank alpha? seed? freeze_vision_tower? freeze_multi_modal_projector?",
    "FromCheckpoint": "source_session_id checkpoint_id",
    "ForwardBackwardRequest": "forward_backward_input",
    "ForwardRequest": "forward_input",
    "ForwardBackwardInput": "data loss_fn loss_fn_config?",
    "LossFnConfig": "clip_low_threshold? clip_high_threshold? tau_pos? tau_neg?",
    "Datum": "model_input loss_fn_inputs",
    "ModelInput": "chunks",
    "ModelInputChunk": "type tokens",
    "LossFnInputs": "target_tokens weights advantages? logprobs?",
    "TensorData": "data",
    "OptimStepRequest": "adam_params",
    "AdamParams": "learning_rate beta1 beta2 eps weight_decay",
    "SaveCheckpointRequest": "path step_number? metrics?",
    "SaveSamplerWeightsRequest": "path? sampling_session_seq_id? seq_id?",
    "SampleRequest": (
        "num_samples prompt sampling_params sampling_session_id? seq_id? prompt_logprobs? "
        "topk_prompt_logprobs"
    ),
    "SamplingParams": "max_tokens temperature top_p top_k seed? stop_criteria? response_format?",
}
SUMS = ("cross_entropy", "importance_sampling")  # losses whose reduction is published
BLANK = {"eps": 1e-8, "grad_clip_norm": 0.0}


@dataclass
class Session:
    """A session, with what it computes and the results of its operations."""

    id: str
    base: str
    rank: int
    marks: dict[str, str]
    tier: str | None
    computing: Computing
    ended: bool = False
    results: dict[str, dict[str, JsonValue]] = field(default_factory=dict[str, Any])
    checkpoints: dict[str, tuple[str, Any]] = field(default_factory=dict[str, Any])
    samplers: dict[str, Any] = field(default_factory=dict[str, Any])  # states by checkpoint


class AzureSessionsVendor(StepsVendor):
    """Azure's sessions, with arithmetic or a real model."""

    key = KEY
    key_headers: ClassVar[Mapping[str, str]] = {"api-key": ""}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.sessions: dict[str, Session] = {}
        self.page = 100
        self.pending = 0  # polls that find an operation unfinished
        self.failure: dict[str, JsonValue] = {}  # of the next operation

    def billed_tokens(self, kind: str = "training") -> int:
        """Return the tokens of a kind that were charged."""
        return sum(tokens for _, each, tokens in self.billed if each == kind)

    def answer(self, request: VendorRequest) -> VendorResponse:
        with self._lock:
            return super().answer(request)

    def check_key(self, request: VendorRequest) -> None:
        if request.headers.get("authorization") != f"Bearer {ENTRA_TOKEN}":
            super().check_key(request)
        if request.headers.get("foundry-features") != "FineTuningSessions=V1Preview":
            raise Refused(403, "this preview feature needs the header Foundry-Features")
        if not request.first("api-version"):
            raise Refused(400, "api-version is missing")

    def error(self, refusal: Refused) -> JsonValue:
        """Return an error body as the SDK reads it."""
        kind = "validation_error" if refusal.status in (400, 422) else "error"
        return {"detail": {"message": refusal.message, "type": kind}}

    # Sessions

    @route("POST", SESSIONS)
    def create(self, request: VendorRequest) -> JsonValue:
        asked = checked("CreateSessionRequest", request.json)
        lora = checked("LoRAConfig", asked["lora_config"])
        base, rank = str(asked["base_model"]), int(lora["rank"])
        if base not in self.models:
            raise Refused(400, f"base model {base} is not supported")
        computing = self._compute(base, rank, int(lora.get("seed") or 0))
        if "from_checkpoint" in asked:
            start = checked("FromCheckpoint", asked["from_checkpoint"])
            source = self._known(str(start["source_session_id"]))
            kind, state = existing(source.checkpoints, start["checkpoint_id"], "checkpoint")
            if (kind, source.base, source.rank) != ("training", base, rank):
                raise Refused(400, "the checkpoint does not fit the session")
            computing.load(state)
        number = f"{next(self._number):08x}"
        marks, tier = dict(asked.get("user_metadata") or {}), asked.get("training_type")
        made = Session(f"session_{number}", base, rank, marks, tier, computing)
        self.sessions[made.id] = made
        return self._accepted(made, {}, f"model_{number}")

    @route("GET", SESSIONS)
    def sessions_list(self, request: VendorRequest) -> JsonValue:
        most = min(int(request.first("limit") or self.page), self.page)
        offset = int(request.first("offset") or 0)
        shown = list(self.sessions.values())[offset : offset + most]
        return {
            "data": [
                {
                    "session_id": each.id,
                    "base_model": each.base,
                    "status": "succeeded" if each.ended else "running",
                    "is_lora": True,
                    "lora_rank": each.rank,
                    "corrupted": False,
                    "last_request_time": datetime.now(UTC).isoformat(),
                }
                for each in shown
            ],
            "cursor": {"offset": offset, "limit": most, "total_count": len(self.sessions)},
        }

    @route("GET", OPERATION)
    def session(self, _: VendorRequest, session_id: str) -> JsonValue:
        found = self._known(session_id)
        data: JsonValue = {"base_model": found.base, "lora_config": {"rank": found.rank}}
        status = "succeeded" if found.ended else "running"
        return {"session_id": found.id, "type": "training", "status": status, "model_data": data}

    @route("POST", OPERATION + "/complete")
    def complete(self, _: VendorRequest, session_id: str) -> JsonValue:
        self._known(session_id).ended = True
        return {"request_id": "unload", "session_id": session_id, "status": "pending"}

    @route("POST", OPERATION + "/heartbeat")
    def heartbeat(self, _: VendorRequest, session_id: str) -> JsonValue:
        return {"session_id": self._live(session_id).id}

    @route("GET", OPERATION + "/checkpoints")
    def checkpoints(self, _: VendorRequest, session_id: str) -> JsonValue:
        return {
            "checkpoints": [
                {
                    "checkpoint_id": name,
                    "checkpoint_type": kind,
                    "time": datetime.now(UTC).isoformat(),
                }
                for name, (kind, _) in self._known(session_id).checkpoints.items()
            ]
        }

    @route("GET", OPERATION + "/checkpoints/{name}")
    def checkpoint_info(self, _: VendorRequest, session_id: str, name: str) -> JsonValue:
        session = self._known(session_id)
        existing(session.checkpoints, name, "checkpoint")
        return {"base_model": session.base, "is_lora": True, "lora_rank": session.rank}

    @route("GET", OPERATION + "/request/{request_id}")
    def result(self, _: VendorRequest, session_id: str, request_id: str) -> JsonValue:
        found = existing(self._known(session_id).results, request_id, "request")
        if self.pending:
            self.pending -= 1
            return {"status": "pending"}
        return found

    # Operations

    @route("POST", OPERATION + "/forward_backward")
    def forward_backward(self, request: VendorRequest, session_id: str) -> JsonValue:
        asked = checked("ForwardBackwardRequest", request.json)
        self.before_step()
        return self._pass(session_id, asked["forward_backward_input"], only_forward=False)

    @route("POST", OPERATION + "/forward")
    def forward(self, request: VendorRequest, session_id: str) -> JsonValue:
        asked = checked("ForwardRequest", request.json)
        return self._pass(session_id, asked["forward_input"], only_forward=True)

    def _pass(self, session_id: str, given: Any, *, only_forward: bool) -> JsonValue:
        session = self._live(session_id)
        asked = checked("ForwardBackwardInput", given)
        loss, config = (
            str(asked["loss_fn"]),
            checked("LossFnConfig", asked.get("loss_fn_config") or {}),
        )
        if loss not in SUMS:
            raise Refused(400, f"this double does not know how Azure averages {loss}")
        data = [_datum(each, loss) for each in asked["data"]]
        if (longest := max(len(each.ids) for each in data)) > self.models[session.base]:
            most = self.models[session.base]
            raise Refused(400, f"{longest} tokens are more than the context window of {most}")
        self._bill(session, "training", sum(len(each.ids) for each in data))
        made = session.computing.forward_backward(data, loss, config, only_forward=only_forward)
        outputs: list[JsonValue] = [{"logprobs": {"data": [*each]}} for each in made]
        return self._accepted(session, {"loss_fn_outputs": outputs, "metrics": {}})

    @route("POST", OPERATION + "/optim_step")
    def optim_step(self, request: VendorRequest, session_id: str) -> JsonValue:
        session = self._live(session_id)
        params = checked("AdamParams", checked("OptimStepRequest", request.json)["adam_params"])
        session.computing.step({**BLANK, **params})
        self.steps += 1
        return self._accepted(session, {"metrics": {"skyrl.ai/grad_norm": 1.0}})

    @route("POST", OPERATION + "/checkpoint")
    def checkpoint(self, request: VendorRequest, session_id: str) -> JsonValue:
        session = self._live(session_id)
        name = str(checked("SaveCheckpointRequest", request.json)["path"])
        if not re.fullmatch(r"[\w-]{1,255}", name, re.ASCII):
            raise Refused(422, f"path is {name!r}; letters, digits, _ and - are allowed")
        if name in session.checkpoints:
            raise Refused(409, f"checkpoint {name} exists")
        session.checkpoints[name] = ("training", session.computing.state())
        return self._accepted(session, {})

    @route("POST", OPERATION + "/checkpoint_sample")
    def checkpoint_sample(self, request: VendorRequest, session_id: str) -> JsonValue:
        session = self._live(session_id)
        asked = checked("SaveSamplerWeightsRequest", request.json)
        ordinal = asked.get("sampling_session_seq_id")
        name = str(asked.get("path") or f"ss{ordinal}_seq{asked['seq_id']}")
        session.samplers[name] = session.computing.state()
        if ordinal is None:
            session.checkpoints[name] = ("sampler", session.computing.state())
        return self._accepted(session, {"type": "save_weights_for_sampler"})

    @route("POST", OPERATION + "/sample")
    def sample(self, request: VendorRequest, session_id: str) -> JsonValue:
        session = self._live(session_id)
        asked = checked("SampleRequest", request.json)
        params = checked("SamplingParams", asked["sampling_params"])
        state = existing(session.samplers, request.first("checkpoint_id") or "", "sampler")
        if params["max_tokens"] < 1:
            raise Refused(422, "max_tokens must be a positive number")
        ids = _tokens(asked["prompt"])
        stops = [str(each) for each in params.get("stop_criteria") or ()]
        self._bill(session, "prefill", len(ids))
        result: dict[str, JsonValue] = {"prompt_tokens": len(ids)}
        if asked.get("prompt_logprobs"):
            known = session.computing.prompt_logprobs(state, ids)
            result |= {"prompt_logprobs": [*known], "sequences": [{"tokens": [0], "logprobs": [0]}]}
            return self._accepted(session, result)
        answers = session.computing.sample(
            state, ids, int(asked["num_samples"]), {**params, "stop": stops}
        )
        self._bill(session, "sampling", sum(len(each.ids) for each in answers))
        result["sequences"] = [
            {"tokens": [*each.ids], "logprobs": [*each.logprobs]} for each in answers
        ]
        return self._accepted(session, result)

    def _accepted(
        self, session: Session, result: dict[str, JsonValue], shown_id: str = ""
    ) -> JsonValue:
        """Note an operation's result, which the next poll returns, and accept it."""
        name = f"request-{next(self._number)}"
        done: dict[str, JsonValue] = {"status": "completed", "result": result}
        if self.failure or self.behavior.fails:
            why = {"error": self.behavior.fails, "error_code": "invalid_request"}
            done, self.failure = {"status": "failed", **(self.failure or why)}, {}
        session.results[name] = done
        return {"request_id": name, "session_id": shown_id or session.id, "status": "pending"}

    def _known(self, session_id: str) -> Session:
        own = f"session_{session_id.removeprefix('model_').removeprefix('session_')}"
        return existing(self.sessions, own, "session")

    def _live(self, session_id: str) -> Session:
        session = self._known(session_id)
        if session.ended:
            raise Refused(404, f"session {session_id} not found")
        return session

    def _bill(self, session: Session, kind: str, tokens: int) -> None:
        self.billed.append((session.id, kind, tokens))


def checked(model: str, given: Any) -> dict[str, Any]:
    """Return an object with the fields of a model of the SDK; refuse any other field."""
    names = FIELDS[model].split()
    known = {name.removesuffix("?") for name in names}
    if unknown := given.keys() - known:
        raise Refused(422, f"{model} has no {sorted(unknown)}")
    if missing := {name for name in names if not name.endswith("?")} - given.keys():
        raise Refused(422, f"{model} needs {sorted(missing)}")
    return dict(given)


def _tokens(given: Any) -> list[int]:
    chunks = [checked("ModelInputChunk", each) for each in checked("ModelInput", given)["chunks"]]
    return [token for each in chunks for token in each["tokens"]]


def _datum(given: Any, loss: str) -> Datum:
    datum = checked("Datum", given)
    ids = _tokens(datum["model_input"])
    tensors = checked("LossFnInputs", datum["loss_fn_inputs"])
    inputs = {name: list(checked("TensorData", each)["data"]) for name, each in tensors.items()}
    if any(len(each) != len(ids) for each in inputs.values()):
        raise Refused(400, "inputs of the loss must be as long as the input of the model")
    needed = ("weights",) if loss == "cross_entropy" else ("advantages", "logprobs")
    targets = [int(each) for each in inputs["target_tokens"]]
    return Datum(ids, targets, {name: inputs[name] for name in needed})
