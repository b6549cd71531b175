"""A key appears nowhere: not in the ledger, a run's folder, messages, logs or events.

Each vendor is served with a distinctive key, which it repeats in its own complaints, as some do. A
job is launched and watched through refusals, a second one is refused and fails; then all that was
written, raised, logged and told is searched for the key, plain and in base64.
"""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import JsonValue

pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("google.genai", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from vendors.serving import VENDORS, ServedVendor, serve_vendor

from unitune.backends import registry
from unitune.backends.protocol import State
from unitune.errors import UnituneError
from unitune.job.job import Data, Job
from unitune.planning.plan import plan
from unitune.run.run import Run, launch, runs
from unitune.testing.contract_base import ROWS, reply_once
from unitune.testing.loopback import Vendor, VendorRequest, VendorResponse
from unitune_providers.vertex import cloud as vertex_cloud

SECRETS = {
    "azure": "planted0123456789abcdefghijklmno0123456789abcdefghijklmno",
    "bedrock": "Planted/Secret+0123456789abcdefghijklmno",
    "fireworks": "fw_planted-0123456789-abcdefghijklmno",
    "nebius": "v1.planted-0123456789-abcdefghijklmno",
    "openai": "sk-planted-0123456789-abcdefghijklmno",
    "together": "tgp-planted-0123456789-abcdefghijklmno",
    "vertex": "ya29.planted-0123456789-abcdefghijklmno",
}

ROW_TEXT = "What is the colour of snow?"


@dataclass
class Telltale:
    """A vendor that refuses with the caller's key in its words, while it is told to."""

    vendor: Vendor
    secret: str
    refuses: Callable[[VendorRequest], bool] = lambda _: False

    def answer(self, asked: VendorRequest) -> VendorResponse:
        if not self.refuses(asked):
            return self.vendor.answer(asked)
        words = f"Incorrect key provided: {self.secret}. It may not do this. Row: {ROW_TEXT}"
        told: JsonValue = {"message": words, "code": 401, "status": "UNAUTHENTICATED"}
        named = {"x-amzn-ErrorType": "AccessDeniedException"}
        return VendorResponse({"error": told, "message": words}, 401, named)


@dataclass
class Scene:
    """A vendor with a planted key, and everything that anybody was told."""

    name: str
    served: ServedVendor
    telltale: Telltale
    folder: Path
    told: list[str] = field(default_factory=list[str])

    def job(self, name: str) -> Job:
        (self.folder / "train.jsonl").write_text("".join(ROWS) * 20)
        return Job(
            name=name,
            model=self.served.setup.model,
            backend=self.name,
            data=Data(train="train.jsonl"),
            folder=self.folder,
        )

    def hear(self, act: Callable[[], object]) -> None:
        """Act, and keep what comes of it: what is returned, or what our error says."""
        try:
            self.told.append(repr(act()))
        except UnituneError as problem:
            self.told += [str(problem), repr(problem), *traceback.format_exception_only(problem)]


@pytest.fixture(params=sorted(VENDORS))
def scene(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Scene]:
    name, secret = request.param, SECRETS[request.param]
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setattr(vertex_cloud, "STAND_IN_TOKEN", secret)
    with serve_vendor(name) as served:
        monkeypatch.setenv("FIREWORKS_API_KEY", SECRETS["fireworks"])
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", SECRETS["azure"])
        monkeypatch.setenv("NEBIUS_API_KEY", SECRETS["nebius"])
        monkeypatch.setenv("OPENAI_API_KEY", SECRETS["openai"])
        monkeypatch.setenv("TOGETHER_API_KEY", SECRETS["together"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["bedrock"])
        if name != "bedrock":
            monkeypatch.setattr(served.server.vendor, "key", secret)
        telltale = Telltale(served.server.vendor, secret)
        served.server.vendor = telltale
        yield Scene(name, served, telltale, tmp_path)


def live(scene: Scene) -> Run:
    """Launch, watch through refusals, and launch in vain; return the run that succeeded."""
    scene.hear(lambda: plan(scene.job("planned")))
    run = launch(scene.job("first"))
    scene.telltale.refuses = lambda asked: asked.method == "GET"
    scene.hear(run.refresh)
    scene.hear(lambda: reply_once(registry.backend(scene.name).chat(scene.served.setup.model)))
    scene.telltale.refuses = lambda _: False
    run.wait(0.01)
    scene.telltale.refuses = lambda _: True
    scene.hear(lambda: launch(scene.job("refused"), allow_duplicate=True))
    backend = registry.backend(scene.name)
    scene.hear(lambda: backend.find("r251125-abc-1", run.folder))
    scene.hear(lambda: backend.cancel(str(run.job_id)))
    scene.hear(lambda: reply_once(backend.chat(scene.served.setup.model)))
    scene.telltale.refuses = lambda _: False
    return run


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()


def test_a_planted_key_is_nowhere(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="unitune")
    run = live(scene)
    assert {one.state for one in runs()} == {State.SUCCEEDED, State.FAILED}
    assert len(scene.told) >= 6
    assert any("***" in text or "Incorrect key" in text for text in scene.told)

    events = [repr(event) for one in runs() for event in one.events()]
    shown = [repr((one, one.error, one.raw, one.tuned_model)) for one in runs()]
    records = [record for record in caplog.records if record.name.startswith("unitune")]
    logged = [repr((record.getMessage(), vars(record))) for record in records]
    places = {
        "told": "\n".join(scene.told).encode(),
        "events": "\n".join(events).encode(),
        "shown": "\n".join(shown).encode(),
        "logged": "\n".join(logged).encode(),
        **dict(written(scene.folder)),
    }
    assert any(name.endswith(".db") for name in places), sorted(places)
    assert any(name.startswith(str(run.folder)) for name in places)
    secret = SECRETS[scene.name].encode()
    forms = (secret, base64.b64encode(secret))
    assert [name for name, content in places.items() for form in forms if form in content] == []

    assert ROW_TEXT in "".join(ROWS)
    above_debug = [
        text for text, record in zip(logged, records, strict=True) if record.levelno > 10
    ]
    assert any("is succeeded" in text and run.id in text for text in above_debug)
    assert not [text for text in above_debug if ROW_TEXT in text]
