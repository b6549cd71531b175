"""plan, and run --plan: side by side, saved, held against a base, budgets, and nobody is called."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import jsonschema
import pytest
from support.command_line import Command, ran
from support.job_files import change, chat_row, write_rows

from unitune.backends.offer import Offer
from unitune.backends.registry import offer_names
from unitune.planning import saved
from unitune.planning.plan import plan as make_plan
from unitune.report.plan import short

SDKS = ["openai", "together", "google.genai", "boto3", "anthropic", "torch", "transformers"]
JOB = """
name: demo
model: {openai: gpt-4o-mini, azure: gpt-4o-mini, together: Qwen/Qwen3-8B, local: tiny/model}
backend: openai
data: {train: train.jsonl, validation: 0.2}
tuning: {epochs: 2}
"""
PRICES = """
prices:
  - {backend: openai, training: 30.00, hosting: 0}
  - {backend: azure, training: 60.00, hosting: 1.70}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A job with prices of its own, so that offers may change."""
    rows = (chat_row(f"question {at}, of some length", f"answer {at}") for at in range(100))
    write_rows(tmp_path / "train.jsonl", rows)
    (tmp_path / "prices.yaml").write_text(PRICES, encoding="utf-8")
    (tmp_path / "unitune.yaml").write_text(JOB, encoding="utf-8")
    return tmp_path / "unitune.yaml"


@pytest.mark.parametrize("width", ["80", "120"])
def test_all_vendors_stand_side_by_side_on_one_screen(
    unitune: Command, file: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    shown = unitune("plan", str(file), "--all")
    assert shown.code == 0
    for name in offer_names():
        assert (name != "fake") == (name in shown.out)
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= int(width)
    assert len(lines) <= 40


def test_the_cheapest_stands_first_and_the_unknown_last(unitune: Command, file: Path) -> None:
    shown = unitune("plan", str(file), "--backend", "azure", "--backend", "openai", "--json")
    plans = {plan["backend"]: plan for plan in json.loads(shown.out)["plans"]}
    assert set(plans) == {"azure", "openai"}
    table = unitune("plan", str(file), "--backend", "azure", "--backend", "openai").out
    assert table.index("openai") < table.index("azure")


def test_the_closest_base_is_proposed_and_priced_where_the_job_names_none(
    unitune: Command, file: Path
) -> None:
    change(file, JOB.splitlines()[2], "model: Qwen/Qwen2.5-0.5B-Instruct")
    change(file, "backend: openai", "backend: local")
    shown = unitune("plan", str(file), "--all")
    assert shown.code == 0
    planned = {one["backend"]: one for one in json.loads(_json(unitune, file))["plans"]}
    together, fireworks, openai = (planned[name] for name in ("together", "fireworks", "openai"))
    assert tuple(one["proposed"] for one in (together, fireworks, openai)) == (False, True, True), (
        "together takes models of the hub by their names"
    )
    assert fireworks["model"] == "accounts/fireworks/models/qwen3-0p6b", "the closest in size"
    assert fireworks["charge"] == openai["charge"] == "estimated"
    assert "fireworks*" in shown.out
    assert f"openai: {openai['model']}" in " ".join(shown.out.split()), "the line to write"
    assert "names no base" not in shown.out.partition("Not available")[2]


def _json(unitune: Command, file: Path) -> str:
    return unitune("plan", str(file), "--all", "--json").out


def test_hosting_is_shown_as_expected_and_not_at_the_dearest_machine(
    unitune: Command, file: Path
) -> None:
    (hosting,) = [
        line["usd"]
        for one in json.loads(_json(unitune, file))["plans"]
        if one["backend"] == "together"
        for line in one["estimate"]["lines"]
        if line["item"] == "hosting"
    ]
    expected, high = (f"{float(hosting[end]):,.2f}" for end in ("expected", "high"))
    shown = unitune("plan", str(file), "--all").out
    assert expected != high
    assert expected in shown
    assert high not in shown


def test_a_machine_without_a_price_says_where_to_set_it(
    unitune: Command, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec", reason="needs the extra `skypilot`")
    monkeypatch.setenv("UNITUNE_IMAGE", "registry.example.com/unitune:cuda")
    monkeypatch.setenv("UNITUNE_STORAGE", str(file.parent))
    change(file, "together: Qwen/Qwen3-8B", "skypilot: Qwen/Qwen3-8B")
    change(file, "backend: openai", "backend: skypilot\nbudget: {usd: 9, hours: 4}")
    told = re.sub(r"\s+", " ", unitune("plan", str(file)).out)
    assert "add the machine's to prices.yaml" in told
    assert "the job's budget is $9, but skypilot's price for the training is unknown" in told
    with (file.parent / "prices.yaml").open("a", encoding="utf-8") as prices:
        prices.write("  - {backend: skypilot, machine: 0.80}\n")
    assert "may cost $0.00 to $3.20" in unitune("plan", str(file)).out


@pytest.mark.parametrize(
    ("backend", "model", "said"),
    [
        ("prime-intellect", "org/base", "together"),
        ("no-such", "org/base", "together"),
        (
            "openai",
            "meta-llama/Llama-3.1-8B-Instruct",
            "openai cannot tune 'meta-llama/Llama-3.1-8B-Instruct'",
        ),
    ],
)
def test_a_backend_that_cannot_train_a_model_is_refused_with_what_can(
    unitune: Command, file: Path, backend: str, model: str, said: str
) -> None:
    change(file, "backend: openai", f"backend: {backend}")
    change(file, JOB.splitlines()[2], f"model: {model}")
    refused = unitune("plan", str(file))
    assert refused.code == 2
    assert said in refused.out + refused.err
    assert "unknown" not in refused.out


def test_an_unknown_price_names_the_option_that_gives_it(
    unitune: Command, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Offer, "price_rows", lambda _: ())
    (file.parent / "prices.yaml").unlink()
    for more in ((), ("--budget", "20")):
        refused = unitune("run", str(file), *more)
        assert refused.code == 6
        assert "--price training=25" in refused.err


@pytest.fixture
def saved_plan(unitune: Command, file: Path) -> Path:
    saved = file.with_name("plan.json")
    assert unitune("plan", str(file), "-o", str(saved)).code == 0
    return saved


def test_a_saved_plan_is_described_by_its_schema(unitune: Command, saved_plan: Path) -> None:
    schema = json.loads(unitune("schema", "plan").out)
    jsonschema.validate(json.loads(saved_plan.read_text(encoding="utf-8")), schema)


def test_a_saved_plan_in_place_of_a_job_file_gets_the_command(
    unitune: Command, saved_plan: Path
) -> None:
    refused = unitune("run", str(saved_plan))
    assert refused.code == 2
    assert "launch it with `unitune run --plan`" in refused.err


def test_several_backends_make_no_plan_to_save(unitune: Command, file: Path) -> None:
    saved = file.with_name("plan.json")
    refused = unitune("plan", str(file), "--all", "-o", str(saved))
    assert (refused.code, saved.exists()) == (2, False)
    assert "--output works with one backend" in refused.err


def test_a_plan_whose_data_changed_is_not_launched(unitune: Command, saved_plan: Path) -> None:
    change(saved_plan.with_name("train.jsonl"), "answer 7", "another answer 7")
    refused = unitune("run", "--plan", str(saved_plan))
    assert refused.code == 5
    assert "data: the rows in train.jsonl have changed" in refused.err
    assert "Nothing was launched" in refused.err


@pytest.mark.parametrize(
    ("more", "extra"),
    [
        (("{file}",), "FILE"),
        (("--budget", "0"), "--budget"),
        (("--backend", "together", "--price", "training=1"), "--backend, --price"),
    ],
)
def test_options_that_a_saved_plan_contains_are_refused_with_it(
    unitune: Command, file: Path, saved_plan: Path, more: tuple[str, ...], extra: str
) -> None:
    refused = unitune("run", "--plan", str(saved_plan), *(word.format(file=file) for word in more))
    assert refused.code == 2
    assert f"Leave out {extra}, or save a new plan" in refused.err


@pytest.mark.parametrize("content", ["{", "{}", ""])
def test_a_file_that_is_no_plan_is_told(unitune: Command, tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content, encoding="utf-8")
    refused = unitune("run", "--plan", "plan.json")
    assert (refused.code, "is not a plan" in refused.err) == (2, True)


def test_over_the_budget_exits_6_and_says_which(unitune: Command, file: Path) -> None:
    over = unitune("plan", str(file), "--budget", "0.001")
    assert over.code == 6
    assert "the job's budget is $0.001" in over.out
    file.with_name("budget.yaml").write_text("month_usd: 0.002\n", encoding="utf-8")
    month = unitune("plan", str(file))
    assert (month.code, "the month's budget is $0.002" in month.out) == (6, True)


def test_a_budget_file_that_is_not_valid_names_line_and_key(unitune: Command, file: Path) -> None:
    file.with_name("budget.yaml").write_text("monthly: 3\n", encoding="utf-8")
    refused = unitune("plan", str(file))
    assert refused.code == 2
    assert "budget.yaml" in refused.err
    assert "monthly" in refused.err


def test_a_script_without_budget_or_plan_launches_nothing(unitune: Command, file: Path) -> None:
    refused = unitune("run", str(file))
    assert refused.code == 6
    assert "unitune run --plan plan.json" in refused.err
    assert "No runs in this project yet" in unitune("runs").out


def test_markdown_is_empty_when_the_base_says_the_same(
    unitune: Command, file: Path, saved_plan: Path
) -> None:
    since = ("plan", str(file), "--markdown", "--against", str(saved_plan))
    same = unitune(*since)
    assert (same.code, same.out) == (0, "")
    change(file, "epochs: 2", "epochs: 4")
    told = unitune(*since).out
    assert told.startswith("<!-- unitune plan: demo -->\n")
    assert re.search(r"\| tokens \| .* in 2 epochs \| .* in 4 epochs \|", told)


def test_the_mask_shows_answers_and_nothing_else_as_learnt(unitune: Command, file: Path) -> None:
    shown = unitune("plan", str(file), "--show-tokens", "--rows", "1")
    assert shown.code == 0, shown.err
    row = shown.out.partition("\n\n")[0]
    learnt = row.partition("«")[2].partition("»")[0]
    assert learnt.replace("\u00b7", "").startswith("answer ")
    assert "\u00b7" in learnt, "tokens stand apart"
    assert row.count("«") == 1, "the question is not learnt"


def test_an_answer_of_weight_0_is_not_learnt(unitune: Command, file: Path) -> None:
    turns = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "kept out", "weight": 0},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "learnt"},
    ]
    rows = [{"messages": turns, "number": number} for number in range(40)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    file.with_name("train.jsonl").write_text(lines, encoding="utf-8")
    file.with_name("held.jsonl").write_text(lines.replace("first", "1st"), encoding="utf-8")
    change(file, "validation: 0.2", "validation: held.jsonl")
    out = unitune("plan", str(file), "--show-tokens", "--rows", "1").out.replace("\u00b7", "")
    assert "«learnt»" in out
    assert "«kept out»" not in out


def test_a_plan_of_all_calls_nobody_and_imports_no_sdk(
    file: Path, guarded_environment: dict[str, str]
) -> None:
    """Every connection raises, even to this machine; SDKs and torch must not be imported."""
    program = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a connection')\n"
        "socket.socket.connect = refuse\n"
        "from unitune.job.job import Job\n"
        "from unitune.planning.plan import plans\n"
        "from unitune.backends.registry import offer_names\n"
        f"found = plans(Job.load({str(file)!r}), offer_names())\n"
        "assert len(found.plans) == len(offer_names())\n"
        f"print([name for name in {SDKS!r} + ['sqlalchemy', 'scipy'] if name in sys.modules])\n"
    )
    environment = {**guarded_environment, "PYTHONPATH": ":".join(sys.path)}
    environment["XDG_STATE_HOME"] = os.environ["XDG_STATE_HOME"]  # without a ledger
    done = ran([sys.executable, "-c", program], env=environment, cwd=file.parent)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_on_the_last_day_openai_is_refused_and_others_are_named(
    unitune: Command, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-25")
    today = unitune("plan", str(file)).out
    assert "organisations that never tuned" in today
    assert "2027-01-06" in today
    assert "2027-01-14" in today
    monkeypatch.setenv("UNITUNE_TODAY", "2027-01-06")
    refused = unitune("plan", str(file))
    assert refused.code == 2
    assert "azure" in refused.out


@pytest.mark.parametrize(
    ("listed", "code", "exit_code"),
    [(True, "lower-price", 6), (False, "free-by-own-price", 0)],
)
def test_a_price_of_nothing_in_the_jobs_folder_is_a_warning(
    unitune: Command,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    listed: bool,
    code: str,
    exit_code: int,
) -> None:
    """A known price applies all the same, so the budget still holds."""
    if not listed:
        monkeypatch.setattr(Offer, "price_rows", lambda _: ())
    (file.parent / "prices.yaml").unlink()
    (file.parent / "budget.yaml").write_text("month_usd: 0\n", encoding="utf-8")
    change(file, "backend: openai\n", "backend: openai\nprices: [{backend: openai, training: 0}]\n")
    planned = unitune("plan", str(file), "--json")
    assert exit_code == planned.code
    (told,) = [one for one in json.loads(planned.out)["findings"] if one["code"] == code]
    assert told["severity"] == "warning"
    flagged = unitune("plan", str(file), "--json", "--price", "training=0")
    assert flagged.code == 0
    assert "own-price" not in flagged.out
    assert "lower-price" not in flagged.out


def test_a_saved_plan_carries_the_prices_and_the_budget_of_its_command_line(
    unitune: Command, file: Path
) -> None:
    (file.parent / "prices.yaml").unlink()
    change(file, "tuning: {epochs: 2}", "tuning: {epochs: 2}\nprices: []")
    given = ("--price", "training=5", "--budget", "20")
    assert unitune("plan", str(file), *given, "-o", "plan.json").code == 0
    kept = saved.read(Path("plan.json"))
    job = saved.job_of(kept, Path("plan.json"))
    assert saved.changes(kept, make_plan(job)) == ()
    assert job.budget is not None
    assert job.budget.usd == 20
    change(file, "epochs: 2", "epochs: 3")
    assert saved.changes(kept, make_plan(saved.job_of(kept, Path("plan.json"))))


COMPARED = """name: compared
model: gpt-4.1-mini-2025-04-14
backend: openai
data: {test: train.jsonl}
evaluate:
  contenders:
    - zero-shot
    - {type: model, name: big, backend: openai, model: gpt-4.1, role: candidate, prompt: zero-shot}
"""


def test_a_job_that_trains_nothing_is_planned_as_its_comparison(
    unitune: Command, file: Path
) -> None:
    """In CI a plan of such a job would else fail every pull request."""
    job = file.with_name("compared.yaml")
    job.write_text(COMPARED, encoding="utf-8")
    told = unitune("plan", str(job))
    assert (
        told.code,
        "\n\nA comparison may cost" in told.out,
    ) == (0, True)
    for words in ("200 (zero-shot 100, big 100)", "big", "it is only compared"):
        assert words in told.out
    assert "training" not in told.out.partition("note")[0]
    assert "### A comparison may cost" in unitune("plan", str(job), "--markdown").out
    assert "no training rows" in unitune("plan", str(job), "--all").err


def test_the_plan_of_a_comparison_is_saved_for_what_changes_and_not_to_be_launched(
    unitune: Command, file: Path
) -> None:
    job, kept = file.with_name("compared.yaml"), file.with_name("plan.json")
    job.write_text(COMPARED, encoding="utf-8")
    told = unitune("plan", str(job), "-o", str(kept))
    assert (told.code, f"Next: unitune compare {job}" in told.err) == (0, True)
    launched = unitune("run", "--plan", str(kept))
    assert (launched.code, "trains nothing. Run `unitune compare" in launched.err) == (2, True)
    assert "needs --markdown" in unitune("plan", str(job), "--against", str(kept)).err
    since = ("plan", str(job), "--markdown", "--against", str(kept))
    assert unitune(*since).out == ""
    cases = file.with_name("train.jsonl")
    cases.write_text("".join(cases.read_text().splitlines(keepends=True)[:90]))
    assert "| rows | 100 to test on | 90 to test on |" in unitune(*since).out


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (9996, "9,996"),
        (27_049, "27.0K"),
        (999_600, "1.00M"),
        (97_400_000, "97.4M"),
        (2_060_000_000, "2.06B"),
    ],
)
def test_tokens_of_large_files_are_said_in_short(tokens: int, words: str) -> None:
    assert words == short(tokens)
