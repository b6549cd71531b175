"""The review without its page: draw, queue, sides, verdicts, figures and preference rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from support.reviewed import CLAUSES, PAIRS, Pair, reviewed, reviewed_by_rubric

from unitune.data.labels import Label, append_label, read_all_labels, read_labels
from unitune.data.load import load
from unitune.errors import DataError, UserError
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.review.figures import figures_of, preference_rows
from unitune.evaluate.review.queue import SHORTEST_GAP, Item, Review
from unitune.evaluate.statistics.labels import MIN_LABELS


@pytest.fixture(autouse=True)
def _same_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitune.evaluate.review.queue.token_hex", lambda _: "0123456789abcdef")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """60 pairs; the judge prefers the candidate in all but every fourth, and fails in one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_DIR", str(tmp_path_factory.mktemp("home")))
        judge: list[float | None] = [-1.0 if at % 4 == 0 else 1.0 for at in range(60)]
        judge[7] = None
        yield reviewed(judge=judge)


def opened(
    comparison: Comparison, folder: Path, reviewer: str = "ana", cases: int | None = 40
) -> Review:
    return Review(comparison, folder / "labels.jsonl", reviewer, cases)


def prefer(review: Review, item: Item, *, candidate: bool = True) -> None:
    left = review.candidate_is_left(item) is candidate
    review.write(item, "left" if left else "right")


def decide_all(review: Review) -> None:
    """Decide the queue, which may grow, always for the candidate."""
    look = review.look()
    while undecided := [item for item in look.items if item not in look.own]:
        for item in undecided:
            prefer(review, item)
        look = review.look()


class TestDraw:
    def test_it_is_random_recorded_and_the_same_for_all_reviewers(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        one, other = opened(comparison, tmp_path), opened(comparison, tmp_path, "ben")
        assert one.draw == other.draw
        assert sorted(one.draw.cases) == sorted(case.id for case in comparison.cases)
        assert one.draw.cases != tuple(case.id for case in comparison.cases)
        assert comparison.folder is not None
        stored = json.loads((comparison.folder / "review-draw.json").read_text())
        assert tuple(stored["cases"]) == one.draw.cases

    def test_more_cases_extend_the_same_draw(self, comparison: Comparison, tmp_path: Path) -> None:
        few, many = (opened(comparison, tmp_path, cases=n).look().items for n in (20, 40))
        first = [item.case for item in few if item.round == "first"]
        assert [item.case for item in many if item.round == "first"][:20] == first

    def test_a_case_without_an_answer_is_not_drawn(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
        made = reviewed(PAIRS[:5])
        object.__setattr__(made.cases[2].answers[made.baseline], "error", "HTTP 503")
        plain = '{"case": "4", "verdict": "loss"}\n{"case": "3", "verdict": "win"}\n'
        (tmp_path / "labels.jsonl").write_text(plain)
        review = opened(made, tmp_path)
        assert "case-2" not in review.draw.cases
        assert review.look().people == {"case-3": -1.0}, "numbers count all rows of the test"


class TestQueue:
    @pytest.mark.parametrize("reviewer", ["ana", "ben", "zoë", "李"])
    def test_one_of_20_cases_comes_again_later(
        self, comparison: Comparison, tmp_path: Path, reviewer: str
    ) -> None:
        items = opened(comparison, tmp_path, reviewer, cases=60).look().items
        rounds = Counter(item.round for item in items)
        assert rounds["first"] == 60
        assert rounds["repeat"] == 3
        for item in items:
            if item.round == "repeat":
                gap = items.index(item) - items.index(Item(item.case, "first"))
                assert gap > SHORTEST_GAP

    def test_sides_are_even_fixed_and_exchanged_in_a_repeat(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        ana, ben = opened(comparison, tmp_path), opened(comparison, tmp_path, "ben")
        firsts = [Item(case.id, "first") for case in comparison.cases]
        left = [ana.candidate_is_left(item) for item in firsts]
        assert left == [opened(comparison, tmp_path).candidate_is_left(item) for item in firsts]
        assert left != [ben.candidate_is_left(item) for item in firsts]
        assert 18 <= sum(left) <= 42
        again = [ana.candidate_is_left(item._replace(round="repeat")) for item in firsts]
        assert again == [not each for each in left]


class TestWriting:
    def test_a_verdict_has_everything_that_a_label_needs(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        review = opened(comparison, tmp_path)
        item = review.look().items[0]
        review.write(item, "right", " terse\r\nbut right ")
        (label,) = read_labels(review.file)
        assert (label.case, label.reviewer, label.note) == (item.case, "ana", "terse\nbut right")
        assert label.verdict == ("loss" if review.candidate_is_left(item) else "win")
        assert (label.candidate, label.baseline) == (comparison.candidate, comparison.baseline)
        assert label.answers == review.answers[""][item.case]
        assert review.look().choice(item) == "right"

    def test_a_changed_verdict_is_appended_and_counts(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        review = opened(comparison, tmp_path)
        item = review.look().items[0]
        review.write(item, "tie")
        review.write(item, "unsure")
        assert len(review.file.read_text().splitlines()) == 2
        assert [label.verdict for label in read_labels(review.file)] == ["unsure"]

    def test_it_resumes_where_it_was_left_even_in_the_middle_of_a_line(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        review = opened(comparison, tmp_path)
        for item in review.look().items[:3]:
            prefer(review, item)
        with review.file.open("a") as file:
            file.write('{"case": "case-1", "verd')  # the process was killed
        resumed = opened(comparison, tmp_path).look()
        assert resumed.progress(resumed.items).done == 3

    def test_labels_for_other_answers_do_not_count(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        stale = Label(case="case-1", reviewer="ana", verdict="win", answers="0" * 12)
        append_label(tmp_path / "labels.jsonl", stale)
        assert opened(comparison, tmp_path).look().own == {}

    def test_a_table_is_not_written_to(self, comparison: Comparison, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"labels.csv: verdicts are written as JSON Lines"):
            Review(comparison, tmp_path / "labels.csv", "ana", 10)

    def test_a_file_of_other_content_is_refused(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        (tmp_path / "labels.jsonl").write_text('{"prompt": "a"}\n')
        with pytest.raises(DataError, match=r"labels.jsonl:1: a label has no key 'prompt'"):
            opened(comparison, tmp_path)
        assert (tmp_path / "labels.jsonl").read_text() == '{"prompt": "a"}\n'

    def test_a_long_note_is_refused(self, comparison: Comparison, tmp_path: Path) -> None:
        review = opened(comparison, tmp_path)
        with pytest.raises(UserError, match="4,001 characters; 4,000 are allowed"):
            review.write(review.look().items[0], "tie", "n" * 4_001)


class TestAuto:
    def test_after_a_pilot_of_30_it_asks_for_what_the_margin_needs(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        review = opened(comparison, tmp_path, cases=None)
        assert review.look().size == MIN_LABELS
        for at, case in enumerate(review.draw.cases[:MIN_LABELS]):
            prefer(review, Item(case, "first"), candidate=at % 3 > 0)
        assert review.look().size == 60, "verdicts that vary so much need all cases"

    def test_verdicts_that_do_not_vary_need_no_more(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        review = opened(comparison, tmp_path, cases=None)
        decide_all(review)
        assert review.look().size == MIN_LABELS


class TestFigures:
    def test_of_two_reviewers_and_a_judge(self, comparison: Comparison, tmp_path: Path) -> None:
        ana, ben = opened(comparison, tmp_path), opened(comparison, tmp_path, "ben")
        decide_all(ana)
        for item in ben.look().items:
            prefer(ben, item, candidate=int(item.case[5:]) % 4 != 0)
        figures = figures_of(ben.look())
        assert figures.cases == 40
        assert figures.reviewers == ("ana", "ben")
        assert figures.same == figures.repeated >= 1
        assert figures.verdicts["win"] + figures.verdicts["loss"] == 40
        assert figures.agreement is not None
        assert figures.agreement.estimate == pytest.approx(0), "ana always says the same"
        assert figures.judge is not None
        assert figures.judge.cases in (39, 40)

    def test_a_reviewer_who_presses_one_key_is_seen(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        review = opened(comparison, tmp_path)
        for item in review.look().items:
            review.write(item, "left")
        figures = figures_of(review.look())
        assert figures.left == figures.preferences
        assert (figures.same, figures.repeated > 0) == (0, True)


class TestSecondLook:
    def test_only_disagreements_come_again_and_the_first_verdict_counts(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        review = opened(comparison, tmp_path)
        decide_all(review)
        look = review.look()
        shown = {item.case for item in look.disagreements}
        assert shown == {case for case in review.draw.cases[:40] if int(case[5:]) % 4 == 0}
        prefer(review, look.disagreements[0], candidate=False)
        figures = figures_of(review.look())
        assert (figures.changed, figures.second) == (1, 1)
        assert {label.verdict for label in read_labels(review.file)} == {"win"}
        assert len(read_all_labels(review.file)) > 40

    def test_nothing_of_the_judge_is_known_before_the_first_verdict(
        self, comparison: Comparison, tmp_path: Path
    ) -> None:
        assert opened(comparison, tmp_path).look().disagreements == []


class TestPreferenceRows:
    def test_reviewed_pairs_become_rows_of_dpo(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
        pairs = [*PAIRS[:4], Pair("Why?", "Because.", ""), Pair("How?", "", "")]
        review = opened(reviewed(pairs), tmp_path, cases=10)
        for number, choice in enumerate([True, False, None, True, True, True]):
            item = Item(f"case-{number}", "first")
            if choice is None:
                review.write(item, "tie")
            else:
                prefer(review, item, candidate=choice)
        (tmp_path / "pairs.jsonl").write_text("\n".join(preference_rows(review.look())) + "\n")
        rows = {row.id: row for row in load(tmp_path / "pairs.jsonl", None, "dpo")}
        assert set(rows) == {"case-0", "case-1", "case-3"}, "a tie and empty answers teach nothing"
        better = {id_: row.messages[-1].text for id_, row in rows.items()}
        assert better["case-0"] == PAIRS[0].candidate
        assert better["case-1"] == PAIRS[1].baseline
        assert rows["case-0"].prompt[-1].text == PAIRS[0].question


class TestRubric:
    @pytest.fixture
    def judged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comparison:
        monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
        return reviewed_by_rubric()

    def test_each_answer_is_reviewed_by_itself_and_some_again(
        self, judged: Comparison, tmp_path: Path
    ) -> None:
        items = opened(judged, tmp_path).look().items
        first = [item for item in items if item.round == "first"]
        assert len(first) == 80
        assert {len({item.case for item in first[at : at + 2]}) for at in range(0, 80, 2)} == {1}
        sooner = [item.contender for item in first[::2]]
        assert 10 <= sooner.count(judged.candidate) <= 30, "which answer comes first is hidden"
        again = [item for item in items if item.round == "repeat"]
        assert len(again) == 2
        assert all(items.index(item._replace(round="first")) < items.index(item) for item in again)

    def test_an_answer_fails_by_one_clause_and_the_label_has_all(
        self, judged: Comparison, tmp_path: Path
    ) -> None:
        review = opened(judged, tmp_path)
        first, second = review.look().items[:2]
        review.write(first, ("pass", "pass", "pass"))
        review.write(second, ("pass", "fail", "unsure"))
        own = review.look().own
        assert [own[item].verdict for item in (first, second)] == ["pass", "fail"]
        assert own[second].clauses == ("pass", "fail", "unsure")
        assert own[second].answers == review.answers[second.contender][second.case]
        better = 1.0 if first.contender == judged.candidate else -1.0
        assert review.look().people == {first.case: better}

    def test_labels_by_another_rubric_do_not_count(
        self, judged: Comparison, tmp_path: Path
    ) -> None:
        review = opened(judged, tmp_path)
        review.write(review.look().items[0], ("pass", "pass"))
        assert review.look().own == {}

    def test_clauses_are_compared_with_the_judge(self, judged: Comparison, tmp_path: Path) -> None:
        """Ana passes each candidate by all clauses, and fails each baseline by the first one."""
        review = opened(judged, tmp_path)
        for item in review.look().items:
            is_candidate = item.contender == judged.candidate
            review.write(item, ("pass" if is_candidate else "fail", "pass", "unsure"))
        look = review.look()
        assert {(item.contender, int(item.case[5:]) % 4) for item in look.disagreements} == {
            (judged.candidate, 0)
        }
        figures = figures_of(look)
        assert figures.verdicts["pass"] == 0
        assert figures.verdicts["unsure"] == figures.verdicts["fail"] == 40
        names, polite = figures.clauses
        assert (names.clause, polite.clause) == CLAUSES[:2], "nothing is known of the third one"
        wrong = len(look.disagreements)
        assert (names.labels, names.people) == (80, 0.5)
        assert names.judge == pytest.approx((40 - wrong) / 80)
        # Cohen: observed 1 - wrong/80; chance 0.5, because people pass one half
        assert names.agreement == pytest.approx((0.5 - wrong / 80) / 0.5)
        assert (polite.people, polite.judge, polite.agreement) == (1.0, 1.0, None)
        assert figures.same == figures.repeated == 2

    def test_the_preferred_answer_of_a_rubric_is_exported(
        self, judged: Comparison, tmp_path: Path
    ) -> None:
        review = opened(judged, tmp_path)
        review.write(Item("case-9", "first", judged.candidate), ("fail", "pass", "pass"))
        review.write(Item("case-9", "first", judged.baseline), ("pass", "pass", "pass"))
        (row,) = map(json.loads, preference_rows(review.look()))
        assert row["preferred_output"][0]["content"] == PAIRS[9].baseline
