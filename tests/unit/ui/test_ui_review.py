"""`unitune review` and its pages without a browser: access, forms, the printed address, exports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.command_line import Command
from support.images import asked, png, uri
from support.reviewed import PAIRS, reviewed

from unitune.data.example import Message
from unitune.data.labels import read_labels
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.review.queue import Item, Review
from unitune.ledger import Ledger
from unitune.ui.app import Access
from unitune.workspace.home import home, make_home

from .conftest import Visitor


@pytest.fixture
def comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    return reviewed(PAIRS[:6])


@pytest.fixture
def visit(comparison: Comparison, tmp_path: Path) -> Visitor:
    make_home(home())
    review = Review(comparison, tmp_path / "labels.jsonl", "ana", 6)
    visitor = Visitor(Ledger(home()), review)
    visitor.access = Access(8700, "/review")
    return visitor


def test_the_address_leads_to_the_review(visit: Visitor) -> None:
    answer = visit(f"/?token={visit.access.token}", token="")
    assert (answer.status, answer.headers["Location"]) == (303, "/review")
    assert "Order" in visit("/review").words


def test_the_images_of_a_question_are_shown(
    visit: Visitor, comparison: Comparison, tmp_path: Path
) -> None:
    turn = Message(**asked(uri(png()), "What is this?"))
    cases = tuple(replace(case, messages=(turn,)) for case in comparison.cases)
    pictured = comparison.model_copy(update={"cases": cases})
    visit.review = Review(pictured, tmp_path / "other.jsonl", "ana", 6)
    page = visit("/review")
    assert f'<img class="thumbnail" src="{uri(png())}"' in page.text
    assert "What is this? [image: image/png, 64\u00d748]" in page.words
    assert "img-src data:" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/review", "/review?item=2", "/review.js"])
def test_without_the_token_nothing_is_shown(visit: Visitor, path: str) -> None:
    answer = visit(path, token="")
    assert answer.status == 403
    assert "Order" not in answer.text


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "http://127.0.0.1:1"}, {}]
)
def test_a_form_of_another_page_gives_no_verdict(
    visit: Visitor, headers: dict[str, str], tmp_path: Path
) -> None:
    sent = visit("/review?item=0", form={"verdict": "left"}, headers=headers or {"X": "1"})
    assert sent.status == 403
    assert (tmp_path / "labels.jsonl").read_text() == ""


def test_a_verdict_is_saved_and_leads_on(visit: Visitor, tmp_path: Path) -> None:
    sent = visit("/review?item=0", form={"verdict": "tie", "note": "same"})
    assert (sent.status, sent.headers["Location"]) == (303, "/review")
    (label,) = read_labels(tmp_path / "labels.jsonl")
    assert (label.verdict, label.note, label.reviewer) == ("tie", "same", "ana")


@pytest.mark.parametrize(
    ("query", "verdict"),
    [("item=0", "win"), ("item=0", ""), ("item=99", "left"), ("", "left"), ("item=-1", "left")],
)
def test_another_form_is_refused(visit: Visitor, query: str, verdict: str, tmp_path: Path) -> None:
    sent = visit(f"/review?{query}", form={"verdict": verdict})
    assert sent.status == 400
    assert "belongs to no case" in sent.words
    assert (tmp_path / "labels.jsonl").read_text() == ""


@pytest.mark.parametrize("query", ["item=x", "item=99", "round=second", "round=third", "item=٣"])
def test_an_odd_address_shows_a_page(visit: Visitor, query: str) -> None:
    assert visit(f"/review?{query}").status == 200


def test_a_labels_file_that_was_damaged_meanwhile_is_explained(
    visit: Visitor, tmp_path: Path
) -> None:
    (tmp_path / "labels.jsonl").write_text('{"case": "case-1", "verdict": "maybe"}\n')
    shown = visit("/review")
    assert shown.status == 400
    assert "labels.jsonl:1: verdict is 'maybe'" in shown.words


@pytest.mark.usefixtures("comparison")
def test_the_command_prints_the_address_of_the_page(
    unitune: Command, served: list[tuple[str, int]]
) -> None:
    done = unitune("review", "--no-browser")
    assert (done.code, len(served)) == (0, 1)
    assert done.out.startswith("http://127.0.0.1:")
    assert Path("labels.jsonl").exists()


@pytest.mark.usefixtures("comparison", "served")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "few"], "--cases is 'few'. Pass a number from 1, or auto."),
        (["--cases", "0"], "--cases is '0'"),
        (["--reviewer", "a\x1bb"], "the reviewer is 'a\\x1bb'. Use a name of at most 80"),
        (["--reviewer", "a\udcff"], "the reviewer is 'a\\udcff'"),
        (["--labels", "table.csv"], "table.csv: verdicts are written as JSON Lines"),
        (["c99"], "There is no comparison 'c99'"),
        (["--export", "dpo", "p.jsonl"], "labels.jsonl: no such file. Review first: unitune rev"),
    ],
)
def test_what_cannot_be_reviewed_is_explained(
    unitune: Command, arguments: list[str], message: str
) -> None:
    done = unitune("review", "--no-browser", *arguments)
    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_preferences_are_exported(unitune: Command, comparison: Comparison) -> None:
    review = Review(comparison, Path("labels.jsonl"), "ana", 6)
    for at in range(4):
        review.write(Item(f"case-{at}", "first"), "left")
    review.write(Item("case-5", "first"), "tie")
    refused = unitune("review", "--export", "sft", "p.jsonl")
    assert "preference rows for dpo, not for 'sft'" in refused.err
    done = unitune("review", "--export", "dpo", "p.jsonl")
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert done.code == 0
    assert "p.jsonl: 4 preference rows for method: dpo." in " ".join(done.err.split())
    assert len(rows) == 4
    assert unitune("review", "--export", "dpo", "labels.jsonl").code == 2, "it is the input"


def test_without_a_preference_there_is_no_row(unitune: Command, comparison: Comparison) -> None:
    Review(comparison, Path("labels.jsonl"), "ana", 6).write(Item("case-5", "first"), "tie")
    done = unitune("review", "--export", "dpo", "p.jsonl")
    assert done.code == 2
    assert "has no preference" in done.err
    assert not Path("p.jsonl").exists()
