"""The review page in Chromium: scripted reviewers with the keyboard, on a phone and in the dark."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.reviewed import CLAUSES, ORCA, PAIRS, orca, reviewed, reviewed_by_rubric
from support.served_pages import served

from unitune.data.labels import read_all_labels, read_labels
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.review.figures import figures_of
from unitune.evaluate.review.queue import Review
from unitune.ledger import Ledger
from unitune.ui.app import Access, application
from unitune.workspace.home import home, make_home

from .conftest import LOOKS, PHONE, Open, faults_of

JUDGE = [-1.0 if at % 4 == 0 else 1.0 for at in range(len(PAIRS))]


@pytest.fixture(autouse=True)
def _same_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitune.evaluate.review.queue.token_hex", lambda _: "0123456789abcdef")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_DIR", str(tmp_path_factory.mktemp("site") / "home"))
        yield reviewed(judge=JUDGE)


@pytest.fixture(scope="module")
def by_rubric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_DIR", str(tmp_path_factory.mktemp("rubric") / "home"))
        yield reviewed_by_rubric()


@pytest.fixture
def enter(new_page: Open) -> Iterator[Open]:
    """Open the address that `unitune review` prints."""
    with ExitStack() as sites:

        def entered(review: Review, **options: Any) -> Any:
            make_home(home())
            access = Access(1, "/review")
            address = sites.enter_context(served(application(Ledger(home()), access, review)))
            return new_page(f"/?token={access.token}", base_url=address, **options)

        yield entered


def opened(
    comparison: Comparison, folder: Path, reviewer: str = "ana", cases: int | None = 8
) -> Review:
    return Review(comparison, folder / "labels.jsonl", reviewer, cases)


def press(page: Any, key: str) -> None:
    """Press a key that loads another page."""
    with page.expect_navigation():
        page.keyboard.press(key)


def text_of(page: Any, side: str) -> str:
    return page.locator(f"section[aria-labelledby=side-{side}] .text").inner_text()


def test_a_review_by_keyboard_alone(enter: Open, comparison: Comparison, tmp_path: Path) -> None:
    review = opened(comparison, tmp_path)
    page = enter(review)
    assert page.locator(".site").inner_text().startswith("Review 1 of 8")
    page.keyboard.press("n")
    page.keyboard.type("the first? u")
    page.keyboard.press("Escape")
    for key in ("ArrowLeft", "ArrowRight", "ArrowDown", "?"):
        press(page, key)
    press(page, "u")
    assert "Your verdict so far: cannot tell" in page.locator(".verdicts").inner_text()
    press(page, "ArrowLeft")
    labels = read_labels(review.file)
    look = review.look()
    assert [look.choice(item) for item in look.items[:4]] == ["left", "right", "tie", "left"]
    assert [label.note for label in labels] == ["the first? u", "", "", ""]
    assert "Review 5 of 8" in page.locator(".site").inner_text()
    assert "left" in page.locator(".status").inner_text()
    for _ in range(4):
        press(page, "ArrowRight")
    assert page.locator("h1").inner_text() == "All cases are reviewed"
    assert "22 more labelled cases are needed" in page.locator("main").inner_text()
    press(page, "u")
    assert "Review 8 of 8" in page.locator(".site").inner_text()
    assert page.complaints == []


def test_contenders_and_judge_are_hidden_until_the_end(
    enter: Open, comparison: Comparison, tmp_path: Path
) -> None:
    page = enter(opened(comparison, tmp_path))
    for _ in range(8):
        source = page.content()
        for name in (comparison.candidate, comparison.baseline, "judge", "case-", "says what"):
            assert name not in source
        press(page, "ArrowLeft")
    assert comparison.candidate in page.content()


def test_the_words_that_differ_are_marked(
    enter: Open, comparison: Comparison, tmp_path: Path
) -> None:
    page = enter(opened(comparison, tmp_path))
    for side in ("left", "right"):
        section = page.locator(f"section[aria-labelledby=side-{side}]")
        marked = " ".join(section.locator("mark").all_inner_texts())
        assert "Thank you for writing to us" not in marked
        assert ("LF-" in marked) is ("LF-" in text_of(page, side))


def test_a_second_verdict_on_a_page_that_is_already_sent_is_not_written(
    enter: Open, comparison: Comparison, tmp_path: Path
) -> None:
    review = opened(comparison, tmp_path)
    page = enter(review)
    with page.expect_navigation():
        page.evaluate(
            "for (const value of ['left', 'right', 'tie'])"
            " document.querySelector(`button[value=${value}]`).click()"
        )
    assert len(read_all_labels(review.file)) == 1


def test_without_javascript_every_button_works(
    enter: Open, comparison: Comparison, tmp_path: Path
) -> None:
    review = opened(comparison, tmp_path)
    page = enter(review, java_script_enabled=False)
    for value in ("left", "right", "tie", "unsure"):
        page.locator(f"button[value={value}]").click()
    page.locator("#undo").click()
    page.locator("textarea").fill("no idea")
    page.locator("button[value=tie]").click()
    look = review.look()
    assert [look.choice(item) for item in look.items[:4]] == ["left", "right", "tie", "tie"]
    assert look.own[look.items[3]].note == "no idea"


def test_another_reviewer_continues_with_the_same_cases_and_other_sides(
    enter: Open, comparison: Comparison, tmp_path: Path
) -> None:
    pages = [enter(opened(comparison, tmp_path, name)) for name in ("ana", "ben")]
    questions: list[list[str]] = [[], []]
    for _ in range(8):
        for page, seen in zip(pages, questions, strict=True):
            seen.append(page.locator(".asked").inner_text())
            press(page, "ArrowLeft")
    assert questions[0] == questions[1]
    figures = figures_of(opened(comparison, tmp_path, "ben").look())
    assert figures.reviewers == ("ana", "ben")
    assert figures.agreement is not None
    assert figures.agreement.cases == 8
    pages[0].reload()
    assert "Agreement of reviewers" in pages[0].locator("main").inner_text()


def test_the_second_look_shows_the_judge_on_disagreements_alone(
    enter: Open, comparison: Comparison, tmp_path: Path
) -> None:
    review = opened(comparison, tmp_path, cases=12)
    page = enter(review)
    while page.locator("h1").inner_text() != "All cases are reviewed":
        better = "ArrowLeft" if "LF-" in text_of(page, "left") else "ArrowRight"
        press(page, better)
    look = review.look()
    assert {item.case for item in look.disagreements} == {
        case for case in review.draw.cases[:12] if int(case[5:]) % 4 == 0
    }
    page.get_by_text("Look at the disagreements").click()
    for _ in look.disagreements:
        words = page.locator(".judge").inner_text()
        mine, other = ("A", "B") if "LF-" in text_of(page, "left") else ("B", "A")
        assert f"You chose {mine}. The judge chose {other}." in words
        press(page, "ArrowDown")
    assert page.locator("h1").inner_text() == "The second look is done"
    count = len(look.disagreements)
    assert f"{count} of {count}" in page.locator("main").inner_text()
    assert {label.verdict for label in read_labels(review.file)} == {"win"}
    assert page.complaints == []


def test_an_answer_that_is_markup_is_only_text(
    enter: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    evil = "<script>document.title = 'owned'</script><img src=x onerror=alert(1)></textarea>"
    pairs = [pair._replace(candidate=f"{pair.candidate} {evil}") for pair in PAIRS[:4]]
    page = enter(opened(reviewed(pairs), tmp_path))
    assert page.title() == "Review · unitune"
    assert evil in text_of(page, "left") + text_of(page, "right")
    assert page.complaints == []


@pytest.mark.parametrize("kind", ["comparison", "by_rubric"])
@pytest.mark.parametrize(("scheme", "size"), LOOKS)
def test_axe_finds_no_fault_and_nothing_scrolls_sideways(
    enter: Open,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    *,
    scheme: str,
    size: Any,
    kind: str,
) -> None:
    review = opened(request.getfixturevalue(kind), tmp_path)
    page = enter(review, color_scheme=scheme, viewport=size)
    for path in ("/review", "/review?item=1", "end", "/review?round=second"):
        if path == "end":
            for item in review.look().items:
                review.write(item, ("unsure", "pass", "fail") if item.contender else "tie")
        page.goto("/review" if path == "end" else path)
        assert faults_of(page) == [], path


def test_on_a_phone_the_buttons_stay_on_the_screen(
    enter: Open, comparison: Comparison, tmp_path: Path
) -> None:
    page = enter(opened(comparison, tmp_path), viewport=PHONE, has_touch=True)
    for value in ("left", "tie", "right", "unsure"):
        box = page.locator(f"button[value={value}]").bounding_box()
        assert box["y"] + box["height"] <= PHONE["height"]
        assert box["height"] >= 36
    page.locator("button[value=tie]").tap()
    page.get_by_text("Review 2 of 8").wait_for()


def test_a_rubric_by_keyboard_alone(enter: Open, by_rubric: Comparison, tmp_path: Path) -> None:
    review = opened(by_rubric, tmp_path, cases=4)
    page = enter(review)
    assert page.locator("legend").all_inner_texts() == list(CLAUSES)
    page.keyboard.press("n")
    page.keyboard.type("pfu")
    page.keyboard.press("Escape")
    for key in "pf":
        page.keyboard.press(key)
    page.keyboard.press("u")  # back to the second clause
    page.keyboard.press("p")
    press(page, "?")
    for key in "pp":
        page.keyboard.press(key)
    press(page, "f")
    look = review.look()
    made = [look.own[item] for item in look.items[:2]]
    assert [label.clauses for label in made] == [
        ("pass", "pass", "unsure"),
        ("pass", "pass", "fail"),
    ]
    assert [(label.verdict, label.note) for label in made] == [("unsure", "pfu"), ("fail", "")]
    press(page, "u")  # back to the second answer
    assert [each.is_checked() for each in page.locator("input[value=fail]").all()] == [
        False,
        False,
        True,
    ]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("f")
    press(page, "Enter")
    look = review.look()
    assert look.own[look.items[1]].clauses == ("pass", "fail", "fail")
    assert "Review 3 of 8" in page.locator(".site").inner_text()
    assert page.complaints == []


def test_an_answer_is_not_sent_before_all_clauses_are_decided(
    enter: Open, by_rubric: Comparison, tmp_path: Path
) -> None:
    review = opened(by_rubric, tmp_path, cases=4)
    for page in (enter(review), enter(review, java_script_enabled=False)):
        page.locator("input[value=pass]").first.check()
        page.get_by_role("button", name="Save").click()
        assert "Review 1 of 8" in page.locator(".site").inner_text()
    assert read_all_labels(review.file) == []
    for clause in page.locator("fieldset").all():
        clause.get_by_label("Pass").check()
    page.get_by_role("button", name="Save").click()
    assert [label.verdict for label in read_all_labels(review.file)] == ["pass"]


def test_enter_on_a_link_follows_it(enter: Open, by_rubric: Comparison, tmp_path: Path) -> None:
    review = opened(by_rubric, tmp_path)
    page = enter(review)
    for key in "pp":
        page.keyboard.press(key)
    press(page, "p")
    for clause in page.locator("fieldset").all():
        clause.get_by_label("Pass").check()
    page.locator("#undo").focus()
    press(page, "Enter")
    assert page.url.endswith("item=0")
    assert len(read_all_labels(review.file)) == 1, "the second answer is not saved"


def test_a_rubric_hides_contenders_and_judge_until_the_second_look(
    enter: Open, by_rubric: Comparison, tmp_path: Path
) -> None:
    review = opened(by_rubric, tmp_path, cases=12)
    page = enter(review)
    while page.locator("h1").inner_text() != "All cases are reviewed":
        source = page.content()
        for name in (*review.sides, "judge", "case-", "It does not"):
            assert name not in source
        verdict = "p" if "LF-" in page.locator("section .text").nth(1).inner_text() else "f"
        for key in (verdict, "p"):
            page.keyboard.press(key)
        press(page, "p")
    table = page.locator("table").inner_text()
    assert all(clause in table for clause in CLAUSES)
    page.get_by_text("Look at the disagreements").click()
    assert "You: pass. The judge: fail." in page.locator(".clause").first.inner_text()
    assert page.locator(".clause blockquote").all_inner_texts() == ["It does not."]
    assert page.complaints == []


@pytest.mark.skipif(not ORCA.exists(), reason="needs the orca-dpo-pairs next to the checkout")
def test_scripted_reviewers_of_real_pairs(
    enter: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One prefers as the data does but for every tenth; one presses by chance."""
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    pairs = orca(40)
    made, chance = reviewed(pairs), random.Random(1)  # noqa: S311
    preferred = {pair[1 if at % 3 else 2] for at, pair in enumerate(pairs)}
    for name in ("careful", "careless"):
        review = opened(made, tmp_path, name, cases=40)
        page, shown = enter(review), 0
        while page.locator("h1").inner_text() != "All cases are reviewed":
            shown += 1
            left = review.cases[review.look().items[shown - 1].case].answers
            item = review.look().items[shown - 1]
            candidate = left[made.candidate].text in preferred
            key = "left" if candidate is review.candidate_is_left(item) else "right"
            if name == "careless":
                key = chance.choice(["left", "right"])
            elif int(item.case[5:]) % 10 == 0:
                key = "right" if key == "left" else "left"
            start = time.monotonic()
            press(page, f"Arrow{key.capitalize()}")
            assert time.monotonic() - start < 5
    careful = figures_of(opened(made, tmp_path, "careful", cases=40).look())
    assert careful.same == careful.repeated == 2
    assert careful.agreement is not None
    assert careful.agreement.interval.low < 0.3
    assert careful.cases == 40
