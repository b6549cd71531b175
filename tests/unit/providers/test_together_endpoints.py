"""Where a tuned model of Together answers from, on a loopback: endpoints, and what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from vendors.together.jobs import Job
from vendors.together.vendor import KEY, TogetherVendor

from unitune.data.example import Message
from unitune.errors import BackendError, JobError, NotFoundError
from unitune.models import Reply, Request, TunedModel
from unitune.testing.loopback import Server, serve
from unitune.testing.vendor_setup import Progress, ServerBehavior
from unitune_providers.together import backend as together
from unitune_providers.together.backend import TogetherBackend

CONFIG = {"config": "cr_one"}
MODEL = TunedModel(backend="together", name="loopback/tone-1", base="Qwen/Qwen3-8B")


@pytest.fixture
def behavior() -> ServerBehavior:
    return ServerBehavior(queued_polls=0, steps=0)


@pytest.fixture
def server(behavior: ServerBehavior, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    vendor = TogetherVendor(behavior)
    done = Job("ft-1", {"model": MODEL.base}, MODEL.name, Progress(polls=2))
    vendor.jobs[done.id] = done
    with serve(vendor) as server:
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        monkeypatch.setattr(together, "POLL_SECONDS", 0.001)
        yield server


@pytest.fixture
def backend(server: Server) -> TogetherBackend:  # noqa: ARG001 - it must be there
    return TogetherBackend()


def test_deploy_twice_is_one_endpoint(server: Server, backend: TogetherBackend) -> None:
    backend.deploy(MODEL, "tone-two", CONFIG)  # a name that a filter may mix up with the next
    refs = {backend.deploy(MODEL, "tone", CONFIG) for _ in range(2)}
    assert (len(refs), len(server.received("POST", "/deployments$"))) == (1, 2)


def test_deploy_goes_on_where_a_killed_one_stopped(
    server: Server, backend: TogetherBackend
) -> None:
    ref = backend.deploy(MODEL, "tone", CONFIG)
    server.vendor.endpoints[ref].split.clear()
    assert ref == backend.deploy(MODEL, "tone", {})
    server.vendor.endpoints[ref].deployments.clear()
    assert ref == backend.deploy(MODEL, "tone", CONFIG)
    assert len(server.vendor.endpoints[ref].deployments) == 1


def test_endpoint_starts_answers_and_goes(backend: TogetherBackend) -> None:
    ref = backend.deploy(MODEL, "tone", CONFIG | {"inactive_timeout": 60})
    seen = backend.deployment_status(ref, MODEL)
    assert (seen.state, seen.model.name) == ("ready", "loopback/tone")
    for _ in range(2):
        backend.undeploy(ref)
    assert backend.deployment_status(ref, MODEL).state == "gone"


def test_endpoint_that_stopped_by_itself_is_gone_and_can_be_woken(
    server: Server, backend: TogetherBackend
) -> None:
    ref = backend.deploy(MODEL, "tone", CONFIG)
    (deployment,) = server.vendor.endpoints[ref].deployments.values()
    deployment.most = deployment.replicas = 0
    assert backend.deployment_status(ref, MODEL).state == "gone"
    assert ref == backend.deploy(MODEL, "tone", {})
    assert backend.deployment_status(ref, MODEL).state == "ready"


def test_endpoint_that_fails_says_so(behavior: ServerBehavior, backend: TogetherBackend) -> None:
    ref = backend.deploy(MODEL, "tone", CONFIG)
    behavior.fails = "no capacity"
    seen = backend.deployment_status(ref, MODEL)
    assert (seen.state, seen.raw) == ("failed", "DEPLOYMENT_STATE_FAILED")


def test_hardware_chooses_among_configurations(server: Server, backend: TogetherBackend) -> None:
    with pytest.raises(JobError, match=r"several .* cr_one \(1xnvidia-h100-80gb\), cr_two \(2x"):
        backend.deploy(MODEL, "tone", {})
    with pytest.raises(JobError, match=r"no configuration .* on 8xnvidia"):
        backend.deploy(MODEL, "tone", {"hardware": "8xnvidia-b200"})
    backend.deploy(MODEL, "tone", {"hardware": "2xnvidia-h100-80gb"})
    (created,) = server.received("POST", "/deployments$")
    assert created.json["config"] == "projects/proj_platform/configs/cr_two"


def test_undeploy_that_takes_too_long_says_that_it_costs(
    backend: TogetherBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "STOP_SECONDS", 0.0)
    ref = backend.deploy(MODEL, "tone", CONFIG)
    with pytest.raises(BackendError, match="Undeploy it again"):
        backend.undeploy(ref)


def test_project_of_the_environment_goes_before_the_keys(
    server: Server, backend: TogetherBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHER_PROJECT_ID", "proj_other")
    with pytest.raises(BackendError):
        backend.deploy(MODEL, "tone", CONFIG)
    assert server.received("GET", "whoami") == []


def test_model_that_nobody_made_is_an_unknown_name(backend: TogetherBackend) -> None:
    with pytest.raises(NotFoundError, match="loopback/gone"):
        backend.deploy(MODEL.model_copy(update={"name": "loopback/gone"}), "gone", CONFIG)


def asked_of(backend: TogetherBackend, name: str, request: Request) -> list[Reply]:
    chat = backend.chat(name)

    async def several() -> list[Reply]:
        async with chat:
            return list(await asyncio.gather(*(chat.reply(request) for _ in range(3))))

    # Two loops, as an evaluation that is taken up again has.
    return [*asyncio.run(several()), *asyncio.run(several())]


def test_answers_carry_tokens_and_time(server: Server, backend: TogetherBackend) -> None:
    question = Message(role="user", content="What is the colour of snow?", weight=0)
    request = Request(messages=(question,), max_tokens=3, stop=("\n",))
    replies = asked_of(backend, "Qwen/Qwen3-8B", request)
    assert {
        (one.text, one.finish_reason, one.prompt_tokens, one.completion_tokens, one.error)
        for one in replies
    } == {("I do not", "length", 6, 3, None)}
    assert all(one.seconds for one in replies)
    assert server.received("POST", "/chat/completions")[0].json == {
        "model": "Qwen/Qwen3-8B",
        "messages": [{"role": "user", "content": "What is the colour of snow?"}],
        "max_tokens": 3,
        "temperature": 0.0,
        "seed": 0,
        "stop": ["\n"],
    }


def test_model_without_an_endpoint_is_an_error_in_the_reply(backend: TogetherBackend) -> None:
    request = Request(messages=(Message(role="user", content="?"),))
    (error,) = {one.error for one in asked_of(backend, "me/tuned", request)}
    assert "create and start a new dedicated endpoint" in (error or "")
