"""What a training in Azure's sessions does when Azure fails or refuses, and what is sent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("torch", reason="needs the extra `azure-sessions`")

from support.steps import launch, prepared, served, trained
from vendors.azure_sessions import FIELDS, KEY, AzureSessionsVendor, environment
from vendors.openai.azure import ENTRA_TOKEN

from unitune.errors import BackendError, JobError, RunFailed
from unitune.models import TunedModel
from unitune.testing.contract_base import QUESTION, reply_once
from unitune.testing.loopback import Fault, Server
from unitune_local.job_folder import JobFolder, Result, read_events
from unitune_local.steps import azure, foundry
from unitune_local.steps.backend import AzureSessionsBackend
from unitune_local.training import worker

OPERATIONS = ("forward_backward", "optim_step", "checkpoint$", "sessions$")
PASSING = (
    Fault.RATE_LIMITED,
    Fault.RATE_LIMITED_AFTER,
    Fault.SERVER_ERROR,
    Fault.ERROR_AFTER,
    Fault.CUT,
    Fault.SHORT,
    Fault.LATE,
)
ENDING = (Fault.EXPIRED_KEY, Fault.CONFLICT_AFTER)  # a resume continues


@pytest.fixture
def vendor(tiny_model: Path) -> AzureSessionsVendor:
    return AzureSessionsVendor(models={str(tiny_model): 512})


def no_sleep(_: float) -> None:
    """Take no time."""


@pytest.fixture(autouse=True)
def server(vendor: AzureSessionsVendor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for module in (
        "unitune.backends.retry",
        "unitune_local.steps.run",
        "unitune_local.steps.foundry",
    ):
        monkeypatch.setattr(f"{module}.sleep", no_sleep)
    with served(vendor, environment, monkeypatch) as made:
        yield made


launch_of = partial(launch, "azure-sessions", checkpoint_usd="0.20")


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Callable[..., JobFolder]:
    def make(name: str = "job", **options: str) -> JobFolder:
        return prepared(launch_of(tiny_model, tmp_path, **options), tmp_path / name)

    return make


def learnt(vendor: AzureSessionsVendor, result: Result) -> object:
    """Return the digest of what the model has learnt, in order."""
    assert result.model is not None
    session, _, name = result.model.name.partition("/")
    return vendor.sessions[session].checkpoints[name][1]


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Return the state after a training without any fault."""
    place = tmp_path_factory.mktemp("whole")
    other = AzureSessionsVendor(models={str(tiny_model): 512})
    with served(other, environment):
        there = prepared(launch_of(tiny_model, place), place / "job")
        return learnt(other, trained(there))


def sent(server: Server, path: str) -> list[Any]:
    return [each.json for each in server.received("POST", path)]


def test_what_requests_are_held_to_are_the_fields_of_the_sdk() -> None:
    models: Any = pytest.importorskip(
        "azure.ai.finetuningsessions.models", reason="needs azure-ai-finetuningsessions"
    )
    # A field that `FineTuningSession.create` adds to the model's
    own = {"CreateSessionRequest": {"from_checkpoint?"}}
    for name, fields in FIELDS.items():
        hints = {
            str(field): str(hint)
            for base in cast("type", vars(models)[name]).__mro__
            for field, hint in vars(base).get("__annotations__", {}).items()
            if field[0] != "_"
        }
        may_lack = {field for field, hint in hints.items() if "None" in hint or "Optional" in hint}
        known = {field + "?" * (field in may_lack) for field in hints} | own.get(name, set())
        assert set(fields.split()) == known, name


def test_the_sdk_trains_at_the_double(
    vendor: AzureSessionsVendor, server: Server, tiny_model: Path
) -> None:
    sdk: Any = pytest.importorskip(
        "azure.ai.finetuningsessions", reason="needs azure-ai-finetuningsessions"
    )
    from azure.core.credentials import AzureKeyCredential  # noqa: PLC0415 - comes with it

    models = sdk.models
    client = sdk.FineTuningSessionClient(
        server.url, AzureKeyCredential(KEY), allow_insecure_http=True
    )
    rank = models.LoRAConfig(rank=16)
    session = sdk.FineTuningSession.create(client, base_model=str(tiny_model), lora_config=rank)
    tensors = {name: models.TensorData(data=[5, 6]) for name in ("target_tokens", "weights")}
    chunk = models.ModelInputChunk(tokens=[4, 5])
    datum = models.Datum(
        model_input=models.ModelInput(chunks=[chunk]),
        loss_fn_inputs=models.LossFnInputs(**tensors),
    )
    assert session.forward([datum]).loss_fn_outputs == [{"logprobs": {"data": [-1.0, -1.0]}}]
    assert session.forward_backward([datum]).loss_fn_outputs[0]["logprobs"]["data"] == [-1.0] * 2
    adam = models.AdamParams(learning_rate=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.0)
    assert session.optim_step(adam).grad_norm == pytest.approx(1.0)
    assert session.save_weights("mine").checkpoint_id == "mine"
    sampler = session.save_weights_for_sampler(1, sampling_session_seq_id=0)
    params = models.SamplingParams(
        max_tokens=4, temperature=1.0, top_p=1.0, top_k=-1, seed=1, stop_criteria=[2]
    )
    made = session.sample([4, 5], params, checkpoint_id=sampler.checkpoint_id, seq_id=1)
    assert (len(made.sequences), made.prompt_tokens) == (1, 2)
    preview = {"foundry_features": "FineTuningSessions=V1Preview", "api_version": "v1"}
    listed = client.sessions.list(**preview)
    assert [each.session_id for each in listed.data] == [session.session_id]
    kept = client.checkpoints.list(session.session_id, **preview)
    assert [(each.checkpoint_id, each.checkpoint_type) for each in kept.checkpoints] == [
        ("mine", "training")
    ]
    info = client.checkpoints.get(session.session_id, "mine", **preview)
    assert (info.base_model, info.lora_rank) == (str(tiny_model), 16)
    path = f"{session.session_id}/mine"
    again = sdk.FineTuningSession.create_from_checkpoint(
        client, checkpoint_path=path, base_model=str(tiny_model), lora_config=rank
    )
    session.close()
    again.close()
    client.close()
    assert [each.ended for each in vendor.sessions.values()] == [True, True]
    assert vendor.steps == 1


@pytest.mark.parametrize("call", OPERATIONS)
@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_a_fault_that_passes_begins_again_at_the_newest_checkpoint(  # noqa: PLR0917 - fixtures
    vendor: AzureSessionsVendor,
    server: Server,
    folder: Callable[..., JobFolder],
    whole: object,
    fault: Fault,
    call: str,
) -> None:
    there = folder()
    server.inject_fault(fault, "POST", call)
    assert learnt(vendor, trained(there)) == whole
    warnings = [each for each in read_events(there.events, "").events if each.kind == "warning"]
    assert "continues from the newest checkpoint" in str(warnings[0].data["text"])


@pytest.mark.parametrize("call", OPERATIONS)
@pytest.mark.parametrize("fault", ENDING, ids=str)
def test_a_refusal_ends_the_worker_and_a_resume_continues(  # noqa: PLR0917 - fixtures
    vendor: AzureSessionsVendor,
    server: Server,
    folder: Callable[..., JobFolder],
    whole: object,
    fault: Fault,
    call: str,
) -> None:
    there = folder()
    server.inject_fault(fault, "POST", call)
    with pytest.raises(BackendError, match=r"HTTP 4(01|09)"):
        trained(there)
    assert learnt(vendor, trained(there)) == whole


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.CUT, Fault.RATE_LIMITED], ids=str)
def test_a_poll_that_fails_is_repeated(
    vendor: AzureSessionsVendor,
    server: Server,
    folder: Callable[..., JobFolder],
    whole: object,
    fault: Fault,
) -> None:
    there = folder()
    vendor.pending = 3
    server.inject_fault(fault, "GET", "request/")
    assert learnt(vendor, trained(there)) == whole
    assert len(vendor.sessions) == 1


def test_the_worker_logs_what_happens_without_the_key(
    vendor: AzureSessionsVendor, server: Server, folder: Callable[..., JobFolder]
) -> None:
    there = folder("r1-1")
    vendor.pending = 3
    server.inject_fault(Fault.SERVER_ERROR, "GET", "request/")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "unitune_local.steps.worker", str(there.path)],
        env={**os.environ, "UNITUNE_LOG": "debug"},
        capture_output=True,
        text=True,
        check=True,
    )
    result = there.result()
    assert result is not None
    assert result.state == "succeeded", done.stderr
    (retry,) = [line for line in done.stderr.splitlines() if "attempt 1 failed" in line]
    assert "run_id=r1" in retry
    assert KEY not in done.stderr


def test_an_engine_that_died_is_followed_by_another_session(
    vendor: AzureSessionsVendor, folder: Callable[..., JobFolder], whole: object
) -> None:
    there, seen = folder(), list[int]()

    def die() -> None:
        seen.append(1)
        if len(seen) == 3:
            vendor.failure = {"error": "The worker died", "error_code": "engine_dead"}

    vendor.before_step = die
    assert learnt(vendor, trained(there)) == whole
    assert len(vendor.sessions) == 2
    assert all(each.ended for each in vendor.sessions.values())


def test_an_operation_that_azure_refuses_fails_the_run_in_its_words(
    vendor: AzureSessionsVendor, folder: Callable[..., JobFolder]
) -> None:
    there = folder()
    vendor.behavior.fails = "the rows taste of soap"
    with pytest.raises(RunFailed, match="the rows taste of soap"):
        trained(there)


def test_a_row_beyond_the_context_window_fails_the_run_in_azures_words(
    vendor: AzureSessionsVendor, folder: Callable[..., JobFolder]
) -> None:
    there = folder()
    vendor.models = dict.fromkeys(vendor.models, 16)
    with pytest.raises(RunFailed, match=r"context window of 16"):
        trained(there)


def test_sessions_and_checkpoints_carry_the_launch_key_and_the_tier(
    vendor: AzureSessionsVendor, folder: Callable[..., JobFolder]
) -> None:
    trained(folder(training_type="data-zone"))
    (session,) = vendor.sessions.values()
    assert (session.marks, session.tier) == ({"unitune": "r1-1"}, "DatazoneStandard")
    assert "r1-1-final" in session.checkpoints
    assert all(name.startswith("r1-1-") for name in session.checkpoints)


def test_a_training_among_many_sessions_is_found(
    vendor: AzureSessionsVendor, folder: Callable[..., JobFolder], whole: object
) -> None:
    there, seen = folder(), list[int]()
    vendor.page = 2

    def end() -> None:
        seen.append(1)
        if len(seen) == 3:
            for each in vendor.sessions.values():
                each.ended = True

    vendor.before_step = end
    with pytest.raises(BackendError, match=r"HTTP 404\). If the session has ended"):
        trained(there)
    asked: foundry.Body = {"type": "training", "lora_config": {"rank": 16}}
    api = AzureSessionsBackend().vendor_api(None)
    body = {**asked, "base_model": next(iter(vendor.models))}
    others = [foundry.Session.open(api, body) for _ in range(5)]
    assert learnt(vendor, trained(there)) == whole
    for other in others:
        other.ended.set()
    assert vendor.steps == 4


def test_large_batches_are_sent_in_several_requests(
    vendor: AzureSessionsVendor,
    server: Server,
    folder: Callable[..., JobFolder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = folder()
    monkeypatch.setattr(azure, "ROWS_TOGETHER", 3)
    trained(there)
    assert [len(each["forward_backward_input"]["data"]) for each in sent(server, "backward")] == [
        *(3, 1) * 4
    ]
    assert vendor.steps == 4


def test_sessions_are_kept_alive(
    server: Server, folder: Callable[..., JobFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = folder()
    monkeypatch.setattr(foundry, "HEARTBEAT_SECONDS", 0.001)
    trained(there)
    assert server.received("POST", "heartbeat")


def test_a_tuned_model_answers_in_a_session_of_its_own(
    vendor: AzureSessionsVendor, server: Server, folder: Callable[..., JobFolder]
) -> None:
    model = trained(folder()).model
    assert model is not None
    reply = reply_once(AzureSessionsBackend().chat(model))
    assert (len(reply.text), reply.finish_reason) == (1, "stop")
    source, _, name = model.name.partition("/")
    start = {"source_session_id": source, "checkpoint_id": name}
    assert sent(server, "sessions$")[-1]["from_checkpoint"] == start
    assert all(each.ended for each in vendor.sessions.values())


def test_a_schema_is_refused_instead_of_ignored(tiny_model: Path) -> None:
    asked = QUESTION.model_copy(update={"response_schema": {"type": "object"}})
    reply = reply_once(AzureSessionsBackend().chat(str(tiny_model)), asked)
    assert "JSON Schema" in (reply.error or "")


def test_a_model_that_is_gone_is_an_error_of_ours(tiny_model: Path) -> None:
    gone = TunedModel(backend="azure-sessions", name="session_9/r1-1-final", base=str(tiny_model))
    assert "404" in (reply_once(AzureSessionsBackend().chat(gone)).error or "")


@pytest.mark.parametrize("loss", ["ppo", "cispo"])
def test_a_loss_that_azure_averages_by_its_own_rule_is_refused(
    tiny_model: Path, tmp_path: Path, loss: str
) -> None:
    job = launch_of(tiny_model, tmp_path, policy_loss=loss).job
    with pytest.raises(JobError, match=rf"policy_loss is '{loss}'.*does not publish"):
        AzureSessionsBackend().validate_options(job)


def test_the_worker_signs_in_with_entra_id_where_there_is_no_key(
    vendor: AzureSessionsVendor,
    folder: Callable[..., JobFolder],
    monkeypatch: pytest.MonkeyPatch,
    whole: object,
) -> None:
    monkeypatch.delenv("AZURE_AI_API_KEY")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "of-the-principal")

    def signs_in(_: str) -> Callable[[], str]:
        return lambda: ENTRA_TOKEN

    given = dict[str, str]()

    def started(_: JobFolder, _module: str, variables: dict[str, str]) -> None:
        given.update(variables)

    monkeypatch.setattr("unitune_local.steps.backend.entra_token", signs_in)
    monkeypatch.setattr(worker, "start_process", started)
    there = folder()
    AzureSessionsBackend().start(there)
    assert (given["AZURE_CLIENT_SECRET"], given["AZURE_AI_API_KEY"]) == ("of-the-principal", "")
    assert learnt(vendor, trained(there)) == whole
