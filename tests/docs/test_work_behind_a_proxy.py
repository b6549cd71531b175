"""The guide `work-behind-a-proxy.md`, as written, in a company's network on loopback.

The guide's proxy and certificate are those of the network; OpenAI and the gateway are its doubles.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs.test_pages import BLOCK, DOCS, WALKED_ELSEWHERE, rows
from support.warm import warm_run
from vendors.company import Company, company_network
from vendors.openai.vendor import KEY, OpenAIVendor

from unitune.testing.loopback import serve
from unitune.testing.vendor_setup import ServerBehavior

PAGE = "how-to/work-behind-a-proxy.md"
RUN = "unitune run unitune.yaml --detach --budget 1"
SECRET = "secret-of-the-gateway"  # noqa: S105 - of nobody
OTHERS = re.compile(r".*_PROXY$|SSL_CERT|.*_CA_BUNDLE$|OPENAI_|UNITUNE_LEDGER", re.IGNORECASE)


@dataclass
class Walk:
    """Where the guide is walked."""

    folder: Path
    company: Company
    environment: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict[str, Any])

    def export(self, line: str) -> None:
        name, _, value = line.removeprefix("export ").partition("=")
        own = {
            "HTTPS_PROXY": self.company.proxy,
            "SSL_CERT_FILE": str(self.company.certificate),
            "OPENAI_API_KEY": KEY,
            "GATEWAY_KEY": SECRET,
        }
        self.environment[name] = own.get(name, value)
        if name == "HTTPS_PROXY":  # the guide's has this user and password too
            assert value.rpartition("@")[0] == self.company.proxy.rpartition("@")[0]

    def write(self, title: str, text: str) -> None:
        if title == "config.yaml":
            self.config |= yaml.safe_load(text)
            file = Path(self.environment["XDG_CONFIG_HOME"], "unitune", title)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yaml.safe_dump(self.config))
        else:
            (self.folder / title).write_text(text)

    def run(self, line: str, *codes: int) -> str:
        words = [sys.executable, "-m", *shlex.split(line)]
        done = warm_run(words, cwd=self.folder, env=self.environment)
        assert done.returncode in (codes or (0,)), done.stderr
        return " ".join(f"{done.stdout} {done.stderr}".split())


@pytest.fixture
def walk(tmp_path: Path, guarded_environment: dict[str, str]) -> Iterator[Walk]:
    folder, certificates, programs = (tmp_path / name for name in ("work", "company", "bin"))
    for each in (folder, certificates, programs):
        each.mkdir()
    vault = programs / "vault"
    vault.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/printed\necho {KEY}\n')
    vault.chmod(0o700)
    rows(folder)
    environment = {k: v for k, v in guarded_environment.items() if not OTHERS.match(k)}
    environment |= {
        "PATH": f"{programs}{os.pathsep}{environment['PATH']}",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "UNITUNE_DIR": str(tmp_path / "home"),
    }
    with (
        serve(OpenAIVendor(ServerBehavior(steps=2))) as openai,
        company_network(certificates, {"openai": openai.url}) as company,
    ):
        yield Walk(folder, company, environment)


def test_the_guide_does_what_it_says(walk: Walk, tmp_path: Path) -> None:
    assert PAGE in WALKED_ELSEWHERE
    output = ""
    for block in BLOCK.finditer((DOCS / PAGE).read_text("utf-8")):
        if block["title"]:
            walk.write(block["title"], block["text"])
            continue
        assert block["language"] == "bash"
        for line in block["text"].splitlines():
            if line.startswith("export "):
                walk.export(line)
            else:
                output += walk.run(line)
    hosts = ["api.openai.com:443", "llm.example.com:443"]
    assert hosts == list(dict.fromkeys(walk.company.tunnels))
    asked = [each for each in walk.company.seen if each.host == "llm.example.com"]
    assert asked
    assert {each.headers["x-gateway-key"] for each in asked} == {SECRET}
    assert all("api-version=2026-11-01" in each.path for each in asked)
    assert not any("x-gateway-key" in s.headers for s in walk.company.seen if s not in asked)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    secrets = (SECRET, "p%40ss%20word", "p@ss word")
    assert not [s for s in secrets if s in output or any(s.encode() in text for text in written)]


def test_its_key_command_prints_the_key(walk: Walk, tmp_path: Path) -> None:
    until_job(walk)
    del walk.environment["OPENAI_API_KEY"]
    blocks = BLOCK.finditer((DOCS / PAGE).read_text("utf-8"))
    (command,) = (block["text"] for block in blocks if "key_commands" in block["text"])
    walk.write("config.yaml", command)
    walk.run("unitune compare unitune.yaml --limit 2 --budget 1")
    assert (tmp_path / "printed").read_text() == "read -field=key secret/openai\n"


def until_job(walk: Walk) -> None:
    """Do what the guide says before its first command."""
    for block in BLOCK.finditer((DOCS / PAGE).read_text("utf-8")):
        if block["title"]:
            walk.write(block["title"], block["text"])
            return
        for line in block["text"].splitlines():
            walk.export(line)


def test_a_certificate_that_is_not_trusted_names_the_variable(walk: Walk) -> None:
    until_job(walk)
    del walk.environment["SSL_CERT_FILE"]
    told = walk.run(RUN, 4)
    assert "CERTIFICATE_VERIFY_FAILED" in told
    assert "set SSL_CERT_FILE to a PEM file" in told


def test_a_socks_proxy_is_refused_before_anything_is_sent(walk: Walk) -> None:
    until_job(walk)
    walk.environment["HTTPS_PROXY"] = "socks5://127.0.0.1:1"
    assert "HTTPS_PROXY names a SOCKS proxy" in walk.run(RUN, 2)
    (run,) = json.loads(walk.run("unitune runs --json"))["runs"]
    assert run["state"] == "failed"
