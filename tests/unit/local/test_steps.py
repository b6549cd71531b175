"""What a training at a vendor of steps does when the vendor fails, refuses or bills."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("tinker", reason="needs the extra `tinker`")

from support.steps import launch, prepared, served, trained
from vendors.tinker.vendor import TinkerVendor, environment

from unitune.errors import BackendError, JobError, NotFoundError, RunFailed, UserError
from unitune.job.job import Job
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import Fault, Server
from unitune_local.job_folder import JobFolder, Result, read_events
from unitune_local.steps.backend import TinkerBackend

# The SDK keeps its connections for the life of the process.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
CALLS = (
    "create_session",
    "create_model",
    "forward_backward",
    "optim_step",
    "save_weights$",
    "save_weights_for_sampler",
    "retrieve_future",
    "sessions/search",
)
# Faults that the SDK waits out, or repeats in the same place of the order
PASSING = (
    Fault.RATE_LIMITED,
    Fault.SERVER_ERROR,
    Fault.ERROR_AFTER,
    Fault.CUT,
    Fault.SHORT,
    Fault.CONFLICT_AFTER,
    Fault.RATE_LIMITED_AFTER,
    Fault.TWICE,
    Fault.LATE,
)


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Collect the SDK's connections while their warnings are ignored."""
    yield
    gc.collect()


@pytest.fixture
def vendor(tiny_model: Path) -> TinkerVendor:
    return TinkerVendor(models={str(tiny_model): 512})


@pytest.fixture(autouse=True)
def server(vendor: TinkerVendor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served(vendor, environment, monkeypatch) as made:
        yield made


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Callable[..., JobFolder]:
    def make(name: str = "job", **options: str) -> JobFolder:
        return prepared(launch_of(tiny_model, tmp_path, **options), tmp_path / name)

    return make


launch_of = partial(launch, "tinker", checkpoint_usd="0.20")


def learnt(vendor: TinkerVendor, result: Result) -> object:
    """Return the digest of what the model has learnt, in order."""
    assert result.model is not None
    return vendor.kept[result.model.name].state


def end_at_the_third_step(vendor: TinkerVendor) -> None:
    """End the vendor's sessions once, before a step."""
    steps = count(1)

    def end() -> None:
        if next(steps) == 3:
            for each in vendor.sessions.values():
                each.ended = "interrupted"

    vendor.before_step = end


@pytest.fixture
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """Return the state after a training without any fault."""
    place = tmp_path_factory.mktemp("whole")
    other = TinkerVendor(models={str(tiny_model): 512})
    with served(other, environment):
        there = prepared(launch_of(tiny_model, place), place / "job")
        return learnt(other, trained(there))  # type: ignore[return-value]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_a_fault_that_passes_changes_nothing(  # noqa: PLR0917 - fixtures
    vendor: TinkerVendor,
    server: Server,
    folder: Callable[..., JobFolder],
    whole: tuple[int, str],
    fault: Fault,
    call: str,
) -> None:
    there = folder()
    server.inject_fault(fault, "POST", call)
    if (fault, call) == (Fault.CONFLICT_AFTER, "retrieve_future"):  # which the SDK takes as final
        with pytest.raises(BackendError, match="409"):
            trained(there)
    assert learnt(vendor, trained(there)) == whole
    assert sum(each.kind == "sampler_weights" for each in vendor.kept.values()) == 1
    assert vendor.steps == whole[0] or fault is Fault.CONFLICT_AFTER


@pytest.mark.parametrize("call", CALLS)
def test_a_key_that_expires_ends_the_worker_and_a_resume_goes_on(
    vendor: TinkerVendor,
    server: Server,
    folder: Callable[..., JobFolder],
    whole: tuple[int, str],
    call: str,
) -> None:
    there = folder()
    server.inject_fault(Fault.EXPIRED_KEY, "POST", call)
    with pytest.raises(BackendError, match=r"401|expired"):
        trained(there)
    assert learnt(vendor, trained(there)) == whole


def test_lack_of_credit_pauses_and_then_says_what_to_do(
    vendor: TinkerVendor, folder: Callable[..., JobFolder]
) -> None:
    """The SDK asks again for an hour; its server says for how long."""
    vendor.pause_seconds = 0
    there = folder()
    vendor.lacks_credit = True
    with pytest.raises(
        BackendError, match=r"HTTP 402\). Add credit, then run `unitune runs resume`"
    ):
        trained(there)
    warnings = [e for e in read_events(there.events, "").events if e.kind == "warning"]
    assert "paused due to billing status" in str(warnings[0].data["text"])
    vendor.lacks_credit = False
    assert trained(there).state == "succeeded"


def test_a_row_beyond_the_context_window_fails_the_run_in_the_vendors_words(
    vendor: TinkerVendor, folder: Callable[..., JobFolder]
) -> None:
    there = folder()
    vendor.models = dict.fromkeys(vendor.models, 16)
    with pytest.raises(RunFailed, match=r"context window of 16 .*tuning.sequence_length"):
        trained(there)


def test_a_failed_step_is_failed_in_the_vendors_words(
    vendor: TinkerVendor, folder: Callable[..., JobFolder]
) -> None:
    there = folder()
    vendor.behavior.fails = "the rows taste of soap"
    with pytest.raises(RunFailed, match="the rows taste of soap"):
        trained(there)
    assert {each.ended for each in vendor.sessions.values()} == {"interrupted"}


def test_a_session_that_ended_is_followed_by_another(
    vendor: TinkerVendor, folder: Callable[..., JobFolder], whole: tuple[int, str]
) -> None:
    there = folder()
    end_at_the_third_step(vendor)
    with pytest.raises(BackendError, match=r"HTTP 410\). The session has ended"):
        trained(there)
    assert learnt(vendor, trained(there)) == whole
    assert len(vendor.sessions) == 2


def test_checkpoints_that_others_changed_or_made_are_no_obstacle(
    vendor: TinkerVendor, folder: Callable[..., JobFolder], whole: tuple[int, str]
) -> None:
    there = folder()
    end_at_the_third_step(vendor)
    with pytest.raises(BackendError):
        trained(there)
    kept = list(vendor.kept.values())
    assert kept
    for each in kept:
        each.marks = {"position": "{}"}
        path = each.path.replace("step-", "mine-of-today")
        vendor.kept[path] = replace(each, path=path)
    assert learnt(vendor, trained(there)) == whole


def test_an_sdk_that_is_too_old_is_named_with_the_command_that_renews_it(
    vendor: TinkerVendor, tiny_model: Path, tmp_path: Path
) -> None:
    vendor.refuses_sdk = True
    with pytest.raises(UserError, match=r"no longer supported.*pip install -U .*tinker"):
        TinkerBackend().specify(launch_of(tiny_model, tmp_path))


def test_a_model_that_the_vendor_does_not_train_is_refused_before_anything_is_sent(
    vendor: TinkerVendor, tiny_model: Path, tmp_path: Path
) -> None:
    vendor.models = {"Qwen/Qwen3-8B": 32768}
    with pytest.raises(NotFoundError, match=r"Known: Qwen/Qwen3-8B"):
        TinkerBackend().specify(launch_of(tiny_model, tmp_path))
    assert vendor.sessions == {}


def test_the_bill_is_the_vendors_by_session(
    vendor: TinkerVendor, folder: Callable[..., JobFolder]
) -> None:
    there = folder()
    result = trained(there)
    assert result.billed_usd == pytest.approx(vendor.billed_usd(), rel=Decimal("1e-9"))
    assert result.billed_tokens == vendor.billed_tokens()


def test_a_bill_that_lags_behind_is_not_taken_for_the_whole(
    vendor: TinkerVendor, folder: Callable[..., JobFolder]
) -> None:
    vendor.bill_is_behind = True
    result = trained(folder())
    assert (result.billed_usd, result.billed_tokens) == (None, vendor.billed_tokens())


def test_a_key_without_the_role_for_bills_trains_all_the_same(
    server: Server, folder: Callable[..., JobFolder]
) -> None:
    server.inject_fault(Fault.EXPIRED_KEY, "GET", "billing")
    there = folder()
    assert trained(there).billed_usd is None
    texts = [str(each.data.get("text")) for each in read_events(there.events, "").events]
    assert any("the bill could not be read" in text for text in texts)


def test_checkpoints_come_by_money_and_expire(
    vendor: TinkerVendor, folder: Callable[..., JobFolder]
) -> None:
    """A step of 4 rows costs some 20 cents here."""
    trained(folder("often"))
    often = [each for each in vendor.kept.values() if each.kind == "weights"]
    assert {each.ttl for each in often} == {7 * 24 * 3600}
    vendor.kept.clear()
    vendor.sessions.clear()
    trained(folder("rarely", checkpoint_usd="100"))
    rarely = [each for each in vendor.kept.values() if each.kind == "weights"]
    assert len(rarely) == 1 < len(often)


def test_everything_at_the_vendor_carries_the_launch_key(
    vendor: TinkerVendor, folder: Callable[..., JobFolder]
) -> None:
    trained(folder())
    kept = [each.marks or {} for each in vendor.kept.values()]
    marks = [each.marks for each in (*vendor.sessions.values(), *vendor.runs.values())]
    assert {each["unitune"] for each in (*marks, *kept)} == {"r1-1"}


def test_no_telemetry_is_sent(server: Server, folder: Callable[..., JobFolder]) -> None:
    trained(folder())
    assert server.received("POST", "telemetry") == []


def test_another_server_needs_the_users_permission_for_the_key(
    vendor: TinkerVendor,
    server: Server,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = server.url
    monkeypatch.delenv("TINKER_BASE_URL")
    asked = launch_of(tiny_model, tmp_path, base_url=url)
    with pytest.raises(UserError, match=r"unitune keys allow"):
        TinkerBackend().specify(asked)
    monkeypatch.setenv("UNITUNE_ALLOW_KEYS", f"TINKER_API_KEY@{url}")
    there = JobFolder(tmp_path / "job")
    there.path.mkdir()
    there.spec.write_text(TinkerBackend().specify(asked))
    model = trained(there).model
    assert model is not None
    assert model.name.endswith(f"@{url}")
    vendor.behavior.otherwise = "white"
    assert reply_once(TinkerBackend().chat(model)).text == "white"


def test_a_judge_cannot_reward_at_a_vendor_of_steps() -> None:
    judge = {"type": "judge", "url": "http://127.0.0.1:9/v1", "model": "m", "rubric": ["Polite."]}
    given: dict[str, object] = {
        "name": "steps",
        "model": "Qwen/Qwen3-8B",
        "backend": "tinker",
        "method": "rft",
    }
    given |= {"data": {"train": "train.jsonl"}, "tuning": {"reward": {"scorers": judge}}}
    with pytest.raises(JobError, match=r"'judge' is a judge.*the backend local"):
        TinkerBackend().validate_options(Job.model_validate(given))
