"""Both sides of OpenAI's wire, ours and the server's, keep to its published description."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from unit.providers.openai_spec import (
    DESCRIPTION,
    GRADED_ROW,
    GRADER,
    MODEL,
    TRIPLE_ROW,
    Stage,
    on_stage,
    problems,
)

from unitune.backends.protocol import State
from unitune.data.example import Message
from unitune.errors import BackendError, NotFoundError
from unitune.job.job import Preference, Tuning
from unitune.models import Request, TunedModel
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import VendorRequest, VendorResponse

pytestmark = pytest.mark.skipif(
    not DESCRIPTION.exists(), reason="needs ../shared/specs/openai-openapi.json"
)
WANDB = {"project": "colours", "tags": ["a"]}


@pytest.fixture(scope="module")
def exchanges(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[tuple[VendorRequest, VendorResponse]]]:
    """Everything that our client and the server say to each other."""
    with (
        pytest.MonkeyPatch.context() as patch,
        on_stage(tmp_path_factory.mktemp("spec"), patch) as stage,
    ):
        _act(stage)
        yield stage.recorder.exchanges


def _act(stage: Stage) -> None:
    backend = stage.backend
    whole = Tuning(epochs=3, batch_size=8, seed=7)
    job_id = stage.submit({"learning_rate_multiplier": 0.5, "wandb": WANDB}, job={"tuning": whole})
    # Nobody polls in between: the description has a call that pauses and no word for it.
    stage.vendor.jobs[job_id].paused = True
    backend.resume(job_id)
    model = stage.follow(job_id)[-1].model
    assert model is not None
    stage.succeed(
        rows=TRIPLE_ROW * 10,
        job={"method": "dpo", "tuning": Tuning(preference=Preference(beta=0.2))},
    )
    graded = {
        "grader": GRADER,
        "reasoning_effort": "low",
        "compute_multiplier": 2,
        "eval_interval": 5,
        "eval_samples": 3,
    }
    stage.succeed(
        graded, rows=GRADED_ROW * 10, job={"method": "rft", "model": "o4-mini-2025-04-16"}
    )
    backend.find("r0123456789abcdef-1", stage.folder)
    backend.list_jobs("")
    backend.checkpoints(job_id, MODEL)
    backend.import_job(job_id)
    _ask(stage, model)
    _fail(stage)
    backend.delete_file(stage.launch().training.ref)
    backend.delete_model(model)


def _ask(stage: Stage, model: TunedModel) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    talk = (
        Message(role="system", content="VendorResponse in one word."),
        Message(role="user", content="Colour of snow?"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="white", tool_call_id="c1"),
    )
    chat = stage.backend.chat(model)
    request = Request(messages=talk, tools=(tool,), stop=("\n",), seed=1)
    assert reply_once(chat, request).error is None


def _fail(stage: Stage) -> None:
    backend = stage.backend
    with pytest.raises(BackendError):
        backend.poll("no-such-job", "")
    with pytest.raises(NotFoundError):
        backend.import_job("no-such-job")
    with pytest.raises(BackendError):
        stage.submit(job={"model": "gpt-5"})
    cancelled = stage.submit(key="r0123456789abcdef-2")
    backend.cancel(cancelled)
    with pytest.raises(BackendError):
        backend.cancel(cancelled)
    broken = stage.submit(rows='{"messages":[]}\n' * 10)
    assert State.FAILED is stage.follow(broken)[-1].state


def test_every_exchange_keeps_to_the_published_description(
    exchanges: list[tuple[VendorRequest, VendorResponse]],
) -> None:
    wrong = {
        f"{asked.method} {asked.path}: {problem}"
        for asked, answer in exchanges
        for problem in problems(asked, answer)
    }
    assert set() == wrong


def test_the_scenario_meets_every_path_that_the_backend_uses(
    exchanges: list[tuple[VendorRequest, VendorResponse]],
) -> None:
    met = {(asked.method, asked.path.split("/")[2]) for asked, _ in exchanges}
    assert met == {
        ("GET", "files"),
        ("POST", "files"),
        ("DELETE", "files"),
        ("GET", "fine_tuning"),
        ("POST", "fine_tuning"),
        ("DELETE", "models"),
        ("POST", "chat"),
    }


def test_what_the_description_forbids_is_noticed() -> None:
    headers = {"content-type": "application/json"}
    wrong = VendorRequest(
        "POST", "/v1/fine_tuning/jobs", {"no": ["1"]}, headers, b'{"model":1,"x":2}'
    )
    found = problems(wrong, VendorResponse({"object": "fine_tuning.job"}))
    assert "unknown query parameter no" in found
    assert "$.x is not described" in found
    assert any("'training_file' is a required property" in one for one in found)
    assert any("'status' is a required property" in one for one in found)
