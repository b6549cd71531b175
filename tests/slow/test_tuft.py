"""Trainings at TuFT, a server with Tinker's API that others wrote: how far the protocols agree.

TuFT 0.2.0 speaks the API of Tinker's SDK 0.25, and refuses fields that later SDKs send. A proxy
drops these fields, so that our SDK gets as far as the calls themselves agree.
"""

from __future__ import annotations

import gc
import json
import os
import site
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("tinker", reason="needs the extra `tinker`")

from support import steps
from support.steps import launch, prepared
from support.tiny_model import save_tiny_model

from unitune.errors import BackendError
from unitune.testing.loopback import VendorRequest, VendorResponse, serve
from unitune_local.job_folder import JobFolder, Result, read_events
from unitune_local.steps.tinker import Tinker
from unitune_local.steps.vendor import Adam, Contract, Prompt, Saved, Trace

# The SDK keeps its connections for the life of the process.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]
KEY = "tml-tuft-key"
# Without vllm and its gigabytes, which TuFT does not import with TUFT_CPU_TEST
PACKAGES = ("tuft==0.2.0", "tinker==0.25.0")
NEEDED = (
    "accelerate>=1",
    "fastapi>=0.133,<0.137",
    "nvidia-ml-py>=13",
    "omegaconf>=2.3",
    "opentelemetry-exporter-otlp>=1.20",
    "opentelemetry-instrumentation-fastapi>=0.41b0",
    "opentelemetry-instrumentation-logging>=0.41b0",
    "uvicorn[standard]>=0.38",
)
INSTALL_SECONDS, START_SECONDS = 300, 120
DROPPED = {
    ("create_model", "optimizer_config"),
    ("save_weights", "user_metadata"),
    ("save_weights_for_sampler", "kind"),
    ("save_weights_for_sampler", "user_metadata"),
}
"""Fields that TuFT refuses, by call."""


@dataclass
class Proxy:
    """A proxy that drops the fields that a server refuses."""

    url: str
    dropped: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def answer(self, request: VendorRequest) -> VendorResponse:
        kept = ("content-type", "accept", "x-api-key", "authorization")
        headers = {name: value for name, value in request.headers.items() if name in kept}
        body = request.body
        while True:
            answer = httpx.request(
                request.method,
                f"{self.url}{request.path}",
                params=request.query,
                headers=headers,
                content=body,
                timeout=60,
                trust_env=False,
            )
            if not (refused := _refused_fields(answer)):
                break
            given = json.loads(body)
            for name in refused:
                del given[name]
                self.dropped.add((request.path.rpartition("/")[2], name))
            body = json.dumps(given).encode()
        kind = {"Content-Type": answer.headers.get("content-type", "application/json")}
        return VendorResponse(answer.content, answer.status_code, kind)


def _refused_fields(answer: httpx.Response) -> list[str]:
    if answer.status_code != 422:
        return []
    found = answer.json()["detail"]
    return [each["loc"][1] for each in found if each["type"] == "extra_forbidden"]


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Collect the SDK's connections while their warnings are ignored."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install TuFT into an environment of its own, on top of this one's packages."""
    folder = tmp_path_factory.mktemp("tuft") / "venv"
    venv.create(folder, with_pip=True)
    made = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = [each for each in (*site.getsitepackages(), *sys.path) if "site-packages" in each]
    (packages / "ours.pth").write_text("\n".join(ours))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for given in (["--no-deps", *PACKAGES], NEEDED):
        command = [made, "-m", "pip", "install", "-q", "--disable-pip-version-check", *given]
        try:
            subprocess.run(
                command, env=environment, check=True, capture_output=True, timeout=INSTALL_SECONDS
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            words = (error.stderr or b"it took too long").decode(errors="replace")
            pytest.skip(f"TuFT cannot be installed here: {words.strip()[-300:]}")
    return made


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tuft(python: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve TuFT with its dummy backends."""
    folder = tmp_path_factory.mktemp("served")
    model = {"model_name": str(tiny_model), "model_path": str(tiny_model), "max_model_len": 512}
    config = {"supported_models": [model], "authorized_users": {KEY: "tester"}}
    (folder / "tuft.yaml").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "TUFT_CPU_TEST": "1",
        "TUFT_HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
    }
    command = [python.parent / "tuft", "launch", "--port", str(port)]
    command += ["-c", folder / "tuft.yaml", "--checkpoint-dir", folder / "checkpoints"]
    with (folder / "log").open("wb") as log:
        served = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        end, url = time.monotonic() + START_SECONDS, f"http://127.0.0.1:{port}"
        while not _is_up(url):
            words = (folder / "log").read_text(errors="replace")[-2000:]
            assert served.poll() is None, words
            assert time.monotonic() < end, words
            time.sleep(0.2)
        yield url
    finally:
        served.terminate()
        served.wait(30)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/v1/healthz", trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def proxy(tuft: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    made = Proxy(tuft)
    with serve(made) as server:  # type: ignore[arg-type]
        monkeypatch.setenv("TINKER_BASE_URL", server.url)
        monkeypatch.setenv("TINKER_API_KEY", KEY)
        yield made


def trained(base: Path, folder: Path, there: JobFolder) -> Result:
    asked = launch("tinker", base, folder, price="")
    return steps.trained(prepared(asked, there.path))


@pytest.mark.usefixtures("proxy")
def test_a_training_succeeds_and_is_found_again(tiny_model: Path, tmp_path: Path) -> None:
    there = JobFolder(tmp_path / "job")
    result = trained(tiny_model, tmp_path, there)
    assert (result.state, result.billed_usd) == ("succeeded", None)
    assert result.model is not None
    assert result.model.name.endswith("/sampler_weights/r1-1")
    losses = [
        float(each.data["loss"])  # type: ignore[arg-type]
        for each in read_events(there.events, "").events
        if each.kind == "step"
    ]
    assert len(losses) == 4
    assert losses[-1] < losses[0], "TuFT's dummy learns"
    again = JobFolder(tmp_path / "again")  # which has nothing of the first
    assert trained(tiny_model, tmp_path, again).model == result.model
    assert [each for each in read_events(again.events, "").events if each.kind == "step"] == []


def test_what_tuft_has_of_the_protocol(proxy: Proxy, tiny_model: Path) -> None:
    """A list for the next release: what fails today may then work."""
    contract = Contract(key="r2-1", base=str(tiny_model), rank=8, stops=(2,))
    vendor, traces = Tinker(contract, KEY), [Trace([5, 6, 7], [1.0, 1.0])]
    vendor.begin(None)
    before = vendor.logprobs(traces)
    assert vendor.learn(traces, "cross_entropy", {}, Adam(1e-3, 0.9, 0.95, 0.0, 1.0)) == before
    saved = vendor.save(1, "{}")
    vendor.publish()
    assert vendor.find().checkpoints == (Saved(1, "", saved.ref),), "it keeps no metadata of these"
    assert proxy.dropped == DROPPED
    fails: dict[str, tuple[Callable[[], object], str]] = {
        "resume": (lambda: Tinker(contract, KEY).begin(saved), "Missing model_id"),
        "sample": (lambda: vendor.sample([Prompt([5], 1, 2, 1.0, 1)]), "sample_sequence_ids"),
        "bill": (vendor.bill, "404"),
        "finish": (lambda: vendor.finish("success"), "404"),
    }
    for call, why in fails.values():
        with pytest.raises((BackendError, AssertionError), match=why):
            call()
