from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune.data.example import Example, Message
from unitune.errors import JobError
from unitune.evaluate.prompts.contenders import (
    LADDER,
    MOST_SHOT_BYTES,
    build,
    check_roles,
    check_shots,
)
from unitune.evaluate.prompts.prompts import (
    MOST_LISTED,
    MOST_SAMPLES,
    OWN_MESSAGES,
    Nearest,
    Prompt,
    draw,
    instructions_from,
)
from unitune.job.contenders import FewShot, Instructed, Recorded, ShotChoice, Tuned, ZeroShot
from unitune.job.job import Evaluate, Tuning


def row(question: str, answer: str, system: str | None = "You sort mail.") -> Example:
    start = () if system is None else (Message(role="system", content=system),)
    return Example(
        messages=(
            *start,
            Message(role="user", content=question),
            Message(role="assistant", content=answer, weight=1),
        )
    )


def spoken(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


CASE = row("where is my parcel?", "parcel")


def test_own_messages_are_the_rows_without_its_answer() -> None:
    assert CASE.prompt == OWN_MESSAGES.messages(CASE)


def test_instructions_stand_at_the_end_of_the_system_prompt() -> None:
    told = Prompt("told", "Say one word.").messages(CASE)
    assert spoken(told) == [
        ("system", "You sort mail.\n\nSay one word."),
        ("user", "where is my parcel?"),
    ]


def test_instructions_make_a_system_prompt_where_there_is_none() -> None:
    told = Prompt("told", "Say one word.").messages(row("hello", "x", system=None))
    assert spoken(told) == [("system", "Say one word."), ("user", "hello")]


def test_shots_are_turns_between_the_cases_system_prompt_and_its_question() -> None:
    shots = (row("pay me back", "refund", system="Another."), row("stop it", "cancel", system=None))
    assert spoken(Prompt("shown", shots=shots).messages(CASE)) == [
        ("system", "You sort mail."),
        ("user", "pay me back"),
        ("assistant", "refund"),
        ("user", "stop it"),
        ("assistant", "cancel"),
        ("user", "where is my parcel?"),
    ]


def test_a_shot_of_many_turns_is_shown_with_all_of_them() -> None:
    shot = Example(
        messages=(
            Message(role="user", content="hi"),
            Message(role="assistant", content="hello", weight=0),
            Message(role="user", content="refund!"),
        ),
        expected="refund",
    )
    assert spoken(Prompt("shown", shots=(shot,)).messages(row("q", "a", system=None))) == [
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "refund!"),
        ("assistant", "refund"),
        ("user", "q"),
    ]


def test_labels_are_listed_the_commonest_first() -> None:
    train = [row(str(at), answer) for at, answer in enumerate(["b", "a", "a ", "c"])]
    assert (
        instructions_from(train)
        == "Answer with exactly one of these, and nothing else:\n- a\n- b\n- c"
    )


def test_json_answers_are_described_by_keys_and_values() -> None:
    answers = [
        {"intent": "refund", "urgent": True, "note": f"free text {at} " + "x" * 80}
        for at in range(3)
    ] + [{"intent": "cancel", "urgent": False, "ticket": 7}]
    text = instructions_from([row(str(at), json.dumps(a)) for at, a in enumerate(answers)])
    lines = text.splitlines()
    assert "Answer with one JSON object and nothing else" in lines[0]
    assert lines[1:] == [
        '- "intent": one of "refund", "cancel"',
        '- "urgent": one of true, false',
        '- "note" (only where it applies): a text',
        '- "ticket" (only where it applies): one of 7',
    ]


@pytest.mark.parametrize(("values", "shown"), [(50, MOST_LISTED), (100, MOST_SAMPLES)])
def test_a_key_with_very_many_values_shows_some_of_them_and_few_if_they_seldom_come_back(
    values: int, shown: int
) -> None:
    train = [row(str(at), json.dumps({"id": at % values})) for at in range(100)]
    line = instructions_from(train).splitlines()[-1]
    assert line.startswith('- "id": such as 0, 1, 2')
    assert shown == len(line.split(": such as ")[1].split(", "))


def test_free_texts_are_shown_as_a_few_samples_within_bounds() -> None:
    train = [row(str(at), f"Dear customer {at}, " + "sorry " * (at + 1)) for at in range(50)]
    text = instructions_from(train)
    assert text.startswith("Answer in the manner")
    assert 1 <= text.count("\n- ") <= 5
    assert len(text.encode()) < 2500


def test_few_long_answers_are_samples_and_no_choice() -> None:
    text = instructions_from([row(str(at), f"{at} " + "word " * 50) for at in range(4)])
    assert text.startswith("Answer in the manner")


LABELS = st.lists(
    st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=3), min_size=1
)


@given(LABELS)
def test_instructions_hold_nothing_but_answers_of_train(labels: list[str]) -> None:
    train = [row(f"question-{at}", label) for at, label in enumerate(labels)]
    listed = instructions_from(train).splitlines()[1:]
    assert {f"- {label}" for label in labels} >= set(listed)


def pool(count: int = 60, labels: int = 6) -> list[Example]:
    return [row(f"question {at}", f"label-{at % labels}") for at in range(count)]


def test_shots_show_every_answer_before_any_twice() -> None:
    answers = [shot.answer for shot in draw(pool(), 12, seed=0)]
    assert len(set(answers[:6])) == 6
    assert all(answers.count(answer) == 2 for answer in answers)


def test_shots_of_json_answers_are_spread_over_the_values_of_keys() -> None:
    train = [
        row(f"{a}{b}{c}", json.dumps({"a": a, "b": b, "unique": f"{a}{b}{c}"}))
        for a in range(4)
        for b in range(4)
        for c in range(4)
    ]
    shown = [json.loads(shot.answer or "") for shot in draw(train, 4, seed=3)]
    assert {value["a"] for value in shown} == {value["b"] for value in shown} == {0, 1, 2, 3}


def test_more_shots_only_add_rows() -> None:
    assert draw(pool(), 16, seed=0)[:4] == draw(pool(), 4, seed=0)


def test_the_seed_decides_and_the_order_of_the_file_does_not() -> None:
    assert draw(pool(), 8, seed=0) == draw(reversed(pool()), 8, seed=0)
    assert draw(pool(), 8, seed=0) != draw(pool(), 8, seed=1)


def test_no_question_is_shown_twice() -> None:
    doubled = [*pool(5), *pool(5), row("question 0", "another answer")]
    shots = draw(doubled, 16, seed=0)
    assert len(shots) == len({shot.input_key for shot in shots}) == 5


def few_shot(train: list[Example], spec: FewShot | None = None, seed: int = 0) -> list[Prompt]:
    evaluate = Evaluate(contenders=(spec or FewShot(), Tuned()))
    contender, _ = build(evaluate, Tuning(seed=seed), train)
    return [*contender.prompts, *contender.refine(contender.prompts[-1])]


def test_auto_tries_more_and_more_shots_then_variants_of_the_best() -> None:
    prompts = few_shot(pool())
    assert [prompt.shot_count for prompt in prompts] == [*LADDER, 16, 16, 16]
    assert [bool(prompt.instructions) for prompt in prompts] == [True] * 3 + [False, True, True]
    assert prompts[2].shots == prompts[3].shots
    assert prompts[2].shots != prompts[4].shots
    assert [isinstance(prompt.shots, Nearest) for prompt in prompts] == [False] * 5 + [True]
    assert len(prompts) == len({prompt.label for prompt in prompts})


@pytest.mark.parametrize(("choose", "nearest"), [("random", 0), ("nearest", 4)])
def test_shots_are_chosen_as_the_job_says(choose: ShotChoice, nearest: int) -> None:
    prompts = few_shot(pool(), FewShot(choose=choose))
    assert nearest == sum(isinstance(prompt.shots, Nearest) for prompt in prompts)
    assert len(prompts) == nearest or not nearest


@pytest.mark.parametrize("choose", ["random", "nearest"])
@pytest.mark.parametrize(("rows", "counts"), [(1, [1]), (3, [3]), (5, [4]), (16, [4, 8, 16])])
def test_auto_stops_at_the_size_of_train(rows: int, counts: list[int], choose: ShotChoice) -> None:
    prompts = few_shot(pool(rows), FewShot(choose=choose))
    assert counts == [prompt.shot_count for prompt in prompts][: len(counts)]
    assert {prompt.shot_count for prompt in prompts[len(counts) :]} == {counts[-1]}


def test_auto_stops_before_prompts_grow_too_long() -> None:
    train = [row(f"{at} " + "x" * (MOST_SHOT_BYTES // 5), str(at)) for at in range(20)]
    assert {prompt.shot_count for prompt in few_shot(train)} == {4}


def test_a_given_number_of_shots_is_kept() -> None:
    assert [prompt.shot_count for prompt in few_shot(pool(), FewShot(shots=3))] == [3] * 4


def test_each_case_is_shown_its_own_nearest_rows_the_nearest_last() -> None:
    train = [
        row("where is my parcel", "parcel"),
        row("my parcel has not arrived", "parcel"),
        row("please close the account", "close"),
    ]
    prompt = few_shot(train, FewShot(shots=2, choose="nearest"))[0]
    assert spoken(prompt.messages(row("where is my parcel now?", "x", system=None)))[1:] == [
        ("user", "my parcel has not arrived"),
        ("assistant", "parcel"),
        ("user", "where is my parcel"),
        ("assistant", "parcel"),
        ("user", "where is my parcel now?"),
    ]


def test_more_shots_than_rows_are_refused() -> None:
    with pytest.raises(JobError, match="needs 9 shots, but the training rows have only 5"):
        check_shots(Evaluate(contenders=(FewShot(shots=9), Tuned())), pool(5))
    check_shots(Evaluate(contenders=(FewShot(shots=5), Tuned())), pool(5))


def test_the_contenders_own_instructions_come_before_the_jobs_and_those_before_made_ones() -> None:
    made, general, own = (
        build(Evaluate(instructions=text, contenders=(spec, Tuned())), Tuning(), pool())[0]
        for text, spec in (
            (None, Instructed()),
            ("For all.", Instructed()),
            ("For all.", Instructed(instructions="For me.")),
        )
    )
    assert "label-0" in made.prompts[0].instructions
    assert general.prompts[0].instructions == "For all."
    assert own.prompts[0].instructions == "For me."


def test_exactly_one_candidate_competes_with_at_least_one_baseline() -> None:
    check_roles((ZeroShot(), Tuned()))
    check_roles((ZeroShot(), Instructed(role="candidate")))
    with pytest.raises(JobError, match="but none has"):
        check_roles((ZeroShot(), Instructed()))
    with pytest.raises(JobError, match="instructed, tuned have the role candidate"):
        check_roles((ZeroShot(), Instructed(role="candidate"), Tuned()))
    with pytest.raises(JobError, match="'tuned' has no baseline"):
        check_roles((ZeroShot(role="reference"), Tuned()))


def test_a_borrowed_prompt_comes_from_prompted_baselines_alone() -> None:
    borrowing = Tuned(name="with-prompt", role="reference", prompt="baseline")
    check_roles((ZeroShot(), Tuned(), borrowing))
    with pytest.raises(JobError, match="cannot be a baseline itself"):
        check_roles((Tuned(prompt="baseline", role="baseline"), Instructed(role="candidate")))
    with pytest.raises(JobError, match="recorded does not have one"):
        check_roles((Recorded(answers="old.jsonl"), Tuned(), borrowing))
