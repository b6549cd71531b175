"""A comparison that a vendor is paid for needs a budget, or a person who says yes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from support.command_line import Command
from support.job_files import write_rows
from vendors.openai.vendor import KEY
from vendors.serving import VENDORS, ServedVendor, serve_vendor

from unitune.cli import consent
from unitune.cost.prices.book import PriceBook

MODEL = VENDORS["openai"].model
JOB = f"""
name: asked
model: {MODEL}
backend: openai
data: {{test: test.jsonl}}
evaluate:
  max_tokens: 16
  contenders:
    - {{type: recorded, name: old, answers: old.jsonl}}
    - {{type: zero-shot, role: candidate}}
  prices: {{{MODEL}: {{input: 0.40, output: 1.60}}}}
"""
SERVER = JOB.replace("backend: openai", "backend: local").replace(
    "{type: zero-shot, role: candidate}",
    "{type: server, url: URL, model: MODEL, role: candidate, prompt: zero-shot, "
    "api_key_variable: OWN_KEY}",
)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ServedVendor]:
    rows = [{"id": f"c{at}", "prompt": f"{at * 7919}?", "completion": "yes"} for at in range(20)]
    old = [{"case": row["id"], "answer": "no"} for row in rows]
    for name, lines in (("test", rows), ("old", old)):
        write_rows(tmp_path / f"{name}.jsonl", lines)
    (tmp_path / "unitune.yaml").write_text(JOB, encoding="utf-8")
    monkeypatch.setenv("OWN_KEY", KEY)
    with serve_vendor("openai") as served:
        monkeypatch.setenv("UNITUNE_ALLOW_KEYS", f"OWN_KEY@{served.server.url}")
        yield served


def asked(vendor: ServedVendor) -> int:
    return len(vendor.server.received("POST", "/chat/completions$"))


def test_a_script_asks_a_vendor_only_within_a_budget(
    unitune: Command, vendor: ServedVendor
) -> None:
    refused = unitune("compare", "unitune.yaml", "--output", "out")
    assert (refused.code, asked(vendor)) == (6, 0)
    assert "the comparison costs money: $0.01. Set a budget (--budget 5" in refused.err

    done = unitune("compare", "unitune.yaml", "--output", "out", "--budget", "1")
    assert (done.code, asked(vendor)) == (0, 20), done.err
    replayed = unitune("compare", "unitune.yaml", "--output", "out", "--replay")
    assert (replayed.code, asked(vendor)) == (0, 20), "no question, no cost"


@pytest.mark.parametrize("said", [False, True])
def test_a_person_is_asked_with_what_it_may_cost(
    unitune: Command,
    vendor: ServedVendor,
    monkeypatch: pytest.MonkeyPatch,
    said: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    questions: list[str] = []

    def confirm(question: str, **_: object) -> bool:
        questions.append(question)
        return said

    monkeypatch.setattr(consent, "is_interactive", lambda: True)
    monkeypatch.setattr(typer, "confirm", confirm)
    assert (0 if said else 6) == unitune("compare", "unitune.yaml").code
    assert questions == ["The comparison costs money: $0.01. Continue?"]
    assert (20 if said else 0) == asked(vendor)


def test_an_unknown_price_needs_a_word(unitune: Command, vendor: ServedVendor) -> None:
    """A model that no price list has: a budget cannot hold what nobody can reckon."""
    text = Path("unitune.yaml").read_text(encoding="utf-8")
    Path("unitune.yaml").write_text(text.replace(f"prices: {{{MODEL}", "prices: {other"), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PriceBook, "find", lambda *_, **__: None)
        refused = unitune("compare", "unitune.yaml")
        assert (refused.code, "unknown for zero-shot" in refused.err) == (6, True), refused.err
        limited = unitune("compare", "unitune.yaml", "--budget", "1")
        assert (limited.code, "the price of zero-shot is unknown" in limited.err) == (6, True)
        assert asked(vendor) == 0
        assert unitune("compare", "unitune.yaml", "--allow-unpriced").code == 0


@pytest.mark.parametrize(("usd", "code"), [(None, 0), ("0", 0), ("0.40", 6)])
def test_a_server_of_ones_own_counts_where_it_has_a_price(
    unitune: Command, vendor: ServedVendor, usd: str | None, code: int
) -> None:
    job = SERVER.replace("URL", f"{vendor.server.url}/v1").replace("MODEL", MODEL)
    lines = [line for line in job.splitlines() if "prices:" not in line]
    if usd is not None:
        lines.append(f"  prices: {{{MODEL}: {{input: {usd}, output: {usd}}}}}")
    Path("unitune.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert code == unitune("compare", "unitune.yaml").code
    assert (20 if code == 0 else 0) == asked(vendor)
