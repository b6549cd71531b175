"""Log records carry their fields, never a key, and nothing is printed unless it is asked for."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import Command

from unitune.observability.logs import Log, log_fields
from unitune.security.redaction import hold_secret

KEY = "sk-0123456789-abcdefghij"
log = Log("unitune_local.training.checkpoint")


def test_a_record_has_the_fields_of_its_context(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="unitune")
    with log_fields(run_id="r1", vendor="openai"), log_fields(vendor="azure"):
        log.info("step %d of %s", 3, "ten", request_id="req-1", status=None)
    log.info("outside")
    inside, outside = caplog.records
    assert (inside.name, inside.getMessage()) == (
        "unitune.local.training.checkpoint",
        "step 3 of ten",
    )
    fields = {name: vars(inside).get(name) for name in ("run_id", "vendor", "request_id")}
    assert fields == {"run_id": "r1", "vendor": "azure", "request_id": "req-1"}
    assert "status" not in vars(inside)
    assert "run_id" not in vars(outside)
    assert inside.filename == "test_logs.py"


def test_a_key_is_removed_from_messages_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="unitune")
    hold_secret(KEY)
    with log_fields(vendor=f"https://user:{KEY}@host"):
        log.debug("sent %s", ValueError(f"Bearer {KEY}"), request_id=KEY)
    (record,) = caplog.records
    assert "***" in record.getMessage()
    assert KEY not in repr(vars(record))


def test_a_library_prints_nothing_and_formats_nothing() -> None:
    code = """
from unitune.observability.logs import Log
class Loud:
    def __str__(self):
        raise AssertionError("formatted")
log = Log("unitune.test")
log.debug("%s", Loud())
log.info("%s", Loud())
log.warning("ready")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_lines_end_with_their_fields(
    unitune: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNITUNE_LOG", "info")
    assert unitune("--version").code == 0
    with log_fields(run_id="r1"):
        log.info("two\nlines", request_id="req-1")
        log.debug("details")
    (line,) = capsys.readouterr().err.splitlines()
    head = "INFO unitune.local.training.checkpoint: two\ufffdlines"
    assert line.endswith(f"{head} run_id=r1 request_id=req-1")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full of Linux")
def test_a_stream_that_fails_does_not_end_what_is_logged() -> None:
    code = """
import os, sys
from unitune.observability.logs import Log, print_logs
print_logs()
log, sys.stderr = Log("unitune.test"), open("/dev/full", "w")
log.warning("no space left")
sys.stderr = open("/dev/null", "w")
sys.stderr.close()
log.warning("a closed file")
print("works")
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-uc", code], capture_output=True, text=True, check=True)
    assert done.stdout == "works\n"


def test_another_level_is_refused(unitune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_LOG", "loud")
    refused = unitune("runs")
    assert refused.code == 2
    assert "UNITUNE_LOG is 'loud'. Set it to one of: debug, info, warning." in refused.err


def test_warnings_are_shown_as_sentences_by_default(
    unitune: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unitune("--version").code == 0
    log.info("details")
    log.warning("the disk is full")
    assert capsys.readouterr().err == "the disk is full\n"
