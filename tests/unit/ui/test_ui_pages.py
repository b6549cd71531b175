"""What the pages show of a ledger, and that they stay right while it changes."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from support.html_pages import Page
from support.sample_comparison import infested, sample_comparison
from support.sample_ledger import SampleLedger, comparison_under_way, fill, start_live_run

from unitune.errors import Mismatch
from unitune.evaluate.documents.history import (
    LONGEST_NOTE,
    NOTES,
    history_folder,
    keep,
    read_notes,
    write_note,
)
from unitune.ledger import Ledger
from unitune.ui import pages
from unitune.workspace.home import home

from .conftest import Visitor

HOSTILE = "</title></script><script>hit()</script><img src=x onerror=hit()>\"'{{ 7*7 }}"


def test_runs_are_listed_with_state_and_cost_the_newest_first(visit: Visitor) -> None:
    words = visit("/runs").words
    assert "3 runs in" in words
    states = re.findall(r"(uncertain|failed|succeeded) ", words)
    assert states == ["uncertain", "failed", "succeeded"]
    assert "$0.02" in words


def test_a_run_shows_plan_and_bill_data_deployments_comparisons_and_events(
    visit: Visitor, sample: SampleLedger
) -> None:
    words = visit(f"/runs/{sample.succeeded}").words
    for shown in (
        "150 of 150",
        "Validation loss",
        "training 1,350 to 3,069 tokens",
        "hosting",
        "Billed 11,400 trained tokens, $0.02",
        f"sha256 {'5b0c21f4e9aa' * 5}",
        f"{sample.succeeded}-d1",
        "ready",
        "better",
        "model: Qwen/Qwen3-8B",
        "after step 150: validation loss",
        "the training has begun",
    ):
        assert shown in words, shown


def test_a_run_that_failed_says_why(visit: Visitor, sample: SampleLedger) -> None:
    assert "the loss is no number any more" in visit(f"/runs/{sample.failed}").words


def test_a_chain_is_told_on_the_pages_of_its_runs(visit: Visitor, sample: SampleLedger) -> None:
    assert f"after run {sample.succeeded}" in visit("/runs").words
    later = visit(f"/runs/{sample.failed}")
    assert ("a", {"href": f"/runs/{sample.succeeded}"}) in Page(later.text).tags
    assert f"Started from {sample.succeeded} (sft)" in later.words
    earlier = visit(f"/runs/{sample.succeeded}").words
    assert f"Continued by {sample.failed} (sft, failed)" in earlier


def test_deployments_show_what_they_cost_and_when_they_end(visit: Visitor) -> None:
    words = visit("/deployments").words
    assert "1 deployment active, at $3.99 an hour." in words
    assert re.search(r"d1 of run .* ready together .* in (2\.9|3\.0) h \$3\.99 \$19\.9", words)
    assert re.search(r"d2 .* gone .* ended \$3\.99 \$107\.7", words)


def test_an_empty_ledger_says_how_to_begin(home_folder: Path) -> None:
    visit = Visitor(Ledger(home_folder))
    assert "Start one: unitune run" in visit("/runs").words
    assert "Run one: unitune compare" in visit("/comparisons").words
    assert "No active deployments." in visit("/deployments").words
    assert not home_folder.exists(), "looking makes no folder"


def test_an_unreadable_run_hides_no_other(tmp_path: Path, home_folder: Path) -> None:
    sample = fill(tmp_path)
    with closing(sqlite3.connect(home_folder / "ledger.db")) as database, database:
        database.execute("UPDATE runs SET created = 'x' WHERE id = ?", (sample.failed,))
    visit = Visitor(sample.ledger)
    words = visit("/runs").words
    assert f"run {sample.failed} cannot be read" in words
    assert "succeeded" in words
    assert visit(f"/runs/{sample.failed}").status == 503


@pytest.mark.parametrize(
    ("query", "count", "first"),
    [
        ("", 180, None),
        ("show=gained", 88, "gained"),
        ("show=lost", 4, "lost"),
        ("show=both+wrong", 71, "both wrong"),
        ("show=errors", 3, None),
        ("show=required", 4, None),
        ("slice=language+%3D+de", 120, None),
        ("show=lost&slice=language+%3D+de", 3, "lost"),
        ("text=NOBODY+RANG", None, None),
        ("text=no+such+words", 0, None),
        ("show=%3Cx%3E&slice=%27&page=0&text=%00", 0, None),
        ("page=99999999999999999999", 180, None),
        ("page=-1&page=٣", 180, None),
    ],
)
def test_cases_are_filtered_by_outcome_slice_and_text(
    visit: Visitor, sample: SampleLedger, query: str, count: int | None, first: str | None
) -> None:
    answer = visit(f"/comparisons/{sample.comparison.id}?{query}")
    assert answer.status == 200
    expected = count
    if expected is None:
        texts = (case.messages[-1].text.casefold() for case in sample.comparison.cases)
        expected = sum("nobody rang" in text for text in texts)
        assert expected
    assert f" {expected} case{'' if expected == 1 else 's'} " in answer.words
    assert min(expected, 20) == answer.text.count("<article")
    if first:
        assert set(re.findall(r"<small>(\w+(?: wrong)?) ·", answer.text)) == {first}


def test_all_cases_are_on_some_page_each_once(visit: Visitor, sample: SampleLedger) -> None:
    pages = [visit(f"/comparisons/{sample.comparison.id}?page={at}").text for at in range(1, 10)]
    numbers = [int(number) for page in pages for number in re.findall(r'id="case-(\d+)"', page)]
    assert list(range(1, 181)) == numbers


def test_a_case_has_the_answer_and_the_score_of_every_contender(
    visit: Visitor, sample: SampleLedger
) -> None:
    lost = visit(f"/comparisons/{sample.comparison.id}?show=lost").words
    card = lost[lost.index("expected") : lost.index("Add a note")]
    assert re.search(
        r"expected \{.*zero-shot wrong Sure! .*few-shot right \{.*tuned wrong \{", card
    )


def test_a_note_is_kept_shown_changed_and_taken_back(visit: Visitor, sample: SampleLedger) -> None:
    comparison, case = sample.comparison, sample.comparison.cases[30]
    address = f"/comparisons/{comparison.id}"

    def note(text: str, query: str = "") -> str:
        sent = visit(f"{address}/notes{query}", form={"case": case.id, "text": text})
        assert sent.status == 303, sent.words
        return sent.headers["Location"]

    assert note("  ask\r\nZoë ", "?show=gained&page=2") == f"{address}?show=gained&page=2#case-31"
    assert read_notes(history_folder(comparison.id or "")) == {case.id: "ask\nZoë"}
    noted = visit(f"{address}?show=noted")
    assert noted.text.count("<article") == 1
    assert "Note ask Zoë" in noted.words
    assert "Note ask Zoë" in visit(f"{address}/report").words
    assert visit(f"{address}?text=ZO%C3%8B").text.count("<article") == 1

    note("it is settled")
    assert "Note it is settled" in visit(f"{address}?show=noted").words
    note("")
    assert visit(f"{address}?show=noted").text.count("<article") == 0


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        ({"text": "x"}, 404, "no case ''"),
        ({"case": "another", "text": "x"}, 404, "no case 'another'"),
        ({"case": "000", "text": "x" * (LONGEST_NOTE + 1)}, 400, "4,001 characters; 4,000"),
        ({"case": "000", "text": "x" * 70_000}, 413, "Too Large"),
    ],
)
def test_a_note_that_cannot_be_kept_is_refused(
    visit: Visitor, sample: SampleLedger, form: dict[str, str], status: int, words: str
) -> None:
    if form.get("case") == "000":
        form = form | {"case": sample.comparison.cases[0].id}
    answer = visit(f"/comparisons/{sample.comparison.id}/notes", form=form)
    assert status == answer.status
    assert words in answer.words


def test_a_torn_note_is_cut_off_and_a_strange_file_left_alone(tmp_path: Path) -> None:
    write_note(tmp_path, "a", "first")
    with (tmp_path / NOTES).open("a") as file:
        file.write('{"case":"b","te')
    assert read_notes(tmp_path) == {"a": "first"}
    write_note(tmp_path, "b", "second")
    assert read_notes(tmp_path) == {"a": "first", "b": "second"}

    (tmp_path / NOTES).write_text("to do: buy milk\n")
    with pytest.raises(Mismatch, match=r"notes\.jsonl:1 is not a note: b'to do"):
        write_note(tmp_path, "a", "x")
    assert (tmp_path / NOTES).read_text() == "to do: buy milk\n"


def test_what_others_wrote_is_text_on_every_page(tmp_path: Path, home_folder: Path) -> None:
    """Source: OWASP, XSS Prevention Cheat Sheet: element content and attributes."""
    sample = fill(tmp_path, HOSTILE)
    kept = keep(infested(sample_comparison(), HOSTILE).model_copy(update={"run": None}))
    write_note(history_folder(kept.id or ""), kept.cases[0].id, HOSTILE)
    visit = Visitor(sample.ledger)
    pages = (
        "/runs",
        f"/runs/{sample.succeeded}",
        f"/runs/{sample.failed}",
        "/deployments",
        "/comparisons",
        f"/comparisons/{kept.id}",
        f"/comparisons/{kept.id}?text={quote(HOSTILE)}&slice={quote(HOSTILE)}",
        f"/runs/{quote(re.sub('[/{}]', '', HOSTILE))}",
    )
    assert home_folder == home()
    for path in pages:
        answer = visit(path)
        assert "hit()" in answer.words or path == "/comparisons", path
        for tag, attributes in Page(answer.text).tags:
            assert tag != "img", path
            assert tag != "script" or attributes.get("src") == "/script.js", path
            assert not [name for name in attributes if name.startswith("on")], path


def test_a_report_has_its_own_policy_and_no_part_in_the_pages(
    visit: Visitor, sample: SampleLedger
) -> None:
    answer = visit(f"/comparisons/{sample.comparison.id}/report")
    assert answer.headers["Content-Security-Policy"].startswith(
        "sandbox allow-scripts; default-src"
    )
    assert "The tuned model is better than the best prompt" in answer.words


def test_a_comparison_under_way_shows_counts_and_no_score(
    visit: Visitor, sample: SampleLedger
) -> None:
    """A line that is being written is no answer yet; looking holds the writer up in nothing."""
    with comparison_under_way(30):
        with (home() / "evaluations" / "bank-intents" / "rows.jsonl").open("a") as rows:
            rows.write('{"contender":"tuned","case":"torn')
        answer = visit("/comparisons")
        assert "bank-intents is being compared" in answer.words
        assert "tuned 30 1 few-shot 30 1 Counts only, no scores" in answer.words
        assert "/script.js" in answer.text
    assert "is being compared" not in visit("/comparisons").words
    assert (sample.comparison.id or "") in visit("/comparisons").words


def test_a_run_moves_although_no_other_process_watches_it(
    tmp_path: Path, home_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "INTERVAL_SECONDS", 0.0)
    run = start_live_run(tmp_path, steps=3, seconds_per_step=0)
    visit = Visitor(Ledger(home_folder))
    seen: list[str] = []
    for _ in range(200):
        answer = visit(f"/runs/{run.id}")
        seen.append(answer.words)
        if "/script.js" not in answer.text:  # nothing more will change
            break
        time.sleep(0.05)
    assert "succeeded" in seen[-1]
    assert "3 of 3" in seen[-1]


def test_no_page_waits_for_a_process_that_acts_for_a_run(tmp_path: Path, home_folder: Path) -> None:
    run = start_live_run(tmp_path)
    visit, ledger = Visitor(Ledger(home_folder)), Ledger(home_folder)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ledger.acting(run.id):
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    started = time.monotonic()
    answers = [visit("/runs"), visit(f"/runs/{run.id}")]
    took = time.monotonic() - started
    done.set()
    holder.join()
    assert [answer.status for answer in answers] == [200, 200]
    assert took < 10
