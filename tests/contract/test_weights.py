"""Checkpoints are listed and weights downloaded at the vendors that have them; others say so."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("together", reason="needs the vendors' extras")

from support.served import trained
from vendors.serving import ServedVendor, serve_vendor

from unitune import main as cli
from unitune.run.run import Run

Say = Callable[..., str]


@pytest.fixture(params=["openai", "together", "bedrock"])
def vendor(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ServedVendor]:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    with serve_vendor(request.param) as served:
        yield served


@pytest.fixture
def run(vendor: ServedVendor, tmp_path: Path) -> Run:
    return trained(vendor, tmp_path)


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command, which must exit so, and return what it printed on both streams."""

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["unitune", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert code == int(ended.value.code or 0)
        printed = capsys.readouterr()
        return printed.out + printed.err

    return run


def test_checkpoints_are_listed_where_the_vendor_keeps_them(run: Run, say: Say) -> None:
    if run.backend_name == "bedrock":
        assert "'bedrock' does not list checkpoints" in say("models", "checkpoints", run.id, code=2)
        return
    listed = json.loads(say("models", "checkpoints", run.id, "--json"))["checkpoints"]
    assert [one["step"] for one in listed] == sorted({one["step"] for one in listed})
    shown = say("models", "checkpoints", run.id)
    assert listed
    assert all(f"step {one['step']}" in shown and one["model"] in shown for one in listed)


def test_weights_are_downloaded_where_the_vendor_hands_them_out(
    run: Run, say: Say, tmp_path: Path
) -> None:
    place = tmp_path / "weights"
    if run.backend_name != "together":
        assert "does not offer weights" in say(
            "models", "download", run.id, "-o", str(place), code=2
        )
        assert not place.exists()
        return
    say("models", "download", run.id, "-o", str(place))
    (file,) = place.iterdir()
    assert file.stat().st_size > 0
    step = json.loads(say("models", "checkpoints", run.id, "--json"))["checkpoints"][0]["step"]
    say("models", "download", run.id, "-o", str(place), "--step", str(step))
    assert len(list(place.iterdir())) == 2
    assert f"Available steps: {step}" in say("models", "download", run.id, "--step", "999", code=2)
