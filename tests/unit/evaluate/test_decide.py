"""A decision from its measurements: five jobs with different right answers, on recorded answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import pytest

from unitune.backends import registry
from unitune.decision import evidence as report
from unitune.decision.decide import decide, measure_and_conclude, resolve
from unitune.decision.evidence import Decision
from unitune.decision.measuring import Choices
from unitune.errors import OverBudget, UserError
from unitune.evaluate.inference.engine import AnswerOptions, ignore
from unitune.job.job import Job
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.planning.preflight import ResolvedJob
from unitune.render.html import write_page
from unitune.run.handle import Run
from unitune.run.run import runs
from unitune.testing.fake import FakeBackend

pytestmark = pytest.mark.heavy

LABELS = ("card", "loan", "rate", "fraud")
TRAIN, DEV, TEST = 100, 60, 200
Put = Callable[["Answers"], "Answers"]


class Answers:
    """Gets so many of the validation rows right: as a prompt, and tuned by rows."""

    def __init__(self, prompted: int, tuned: dict[int, int]) -> None:
        self.prompted, self.tuned = prompted, tuned
        self.asked = Counter[str]()
        self.never = ""
        self.known: dict[str, int] = {}

    def right(self, model: str) -> int:
        if not (of := [run for run in runs() if run.id in model]):
            return self.prompted
        rows, seed = map(int, of[0].name.removeprefix("demo rows=").split(", seed="))
        return self.tuned[rows] + seed % 3 - 1

    def __call__(self, model: str, request: Request) -> str:
        kind, number = request.messages[-1].text.split()
        self.asked[kind] += 1
        right = LABELS[int(number) % 4]
        if model not in self.known:
            self.known[model] = self.right(model)
        # Mixed, so that each label is missed alike.
        knows = int(number) * 37 % DEV < self.known[model] and right != self.never
        return right if knows else "other"


class Model:
    def __init__(self, name: str, answers: Answers) -> None:
        self.name, self.answers = name, answers

    @property
    def fingerprint(self) -> str:
        return f"recorded:{self.name}"

    async def reply(self, request: Request) -> Reply:
        return Reply(
            text=self.answers(self.name, request),
            finish_reason="stop",
            prompt_tokens=10,
            completion_tokens=2,
        )

    async def aclose(self) -> None:
        pass


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], Answers]:
    """Have every model of the fake backend answer so."""

    def put(answers: Answers) -> Answers:
        class Recorded(FakeBackend):
            def chat(self, model: str | TunedModel) -> ChatModel:
                return Model(model if isinstance(model, str) else model.name, answers)

        monkeypatch.setattr(registry, "backend", lambda _: Recorded())
        monkeypatch.setattr(Run, "_rest", lambda *_: None)
        return answers

    return put


@pytest.fixture
def job(make_job: Any) -> Job:
    return with_rows(make_job)


def with_rows(make_job: Any, *, train: int = TRAIN, test: int = TEST, **more: Any) -> Job:
    made = make_job(
        {"scorers": ["exact"], "contenders": ["zero-shot", "tuned"]},
        train=[(f"train {at}", LABELS[at % 4]) for at in range(train)],
        dev=[(f"dev {at}", LABELS[at % 4]) for at in range(DEV)],
        test=[(f"test {at}", LABELS[at % 4]) for at in range(test)],
    )
    fake = {"fake": {"steps": 1, "steps_per_poll": 9}}
    return Job.model_validate({**dict(made), "options": fake, **more})


RISING = {25: 20, 50: 30, 100: 36}


class TestFiveJobs:
    """Each with another right answer."""

    def test_a_prompt_suffices(self, job: Job, answered: Put) -> None:
        answers = answered(Answers(prompted=60, tuned=RISING))
        decision = decide(job)
        assert rule_of(decision) == ("prompt", "prompt_suffices")
        assert runs() == []
        assert answers.asked == {"dev": DEV}

    def test_tuning_pays(self, job: Job, answered: Put) -> None:
        answers = answered(Answers(prompted=30, tuned={100: 50}))
        decision = decide(job)
        assert rule_of(decision) == ("tune", "tuning_pays")
        (own,) = runs()
        assert decision.conclusion.next.command == f"unitune compare --run {own.id}"
        assert answers.asked == {"dev": 2 * DEV}  # prompt and one training; the test is unused
        option = decision.evidence.options[0]
        assert option.gain is not None
        assert pytest.approx(option.gain.value) == (49 - 30) / 60

    def test_too_few_rows(self, job: Job, answered: Put) -> None:
        answered(Answers(prompted=34, tuned=RISING))
        decision = decide(job)
        assert rule_of(decision) == ("collect", "more_rows_pay")
        conclusion = decision.conclusion
        assert conclusion.kind == "training"
        assert 0 < (conclusion.rows or 0) < 400
        assert len(runs()) == 9
        curve = decision.evidence.options[0].curve
        assert curve is not None
        assert curve.goal is not None
        assert pytest.approx(curve.goal.score) == 34 / 60 + 0.05

    def test_the_test_is_too_small(self, make_job: Any, answered: Put) -> None:
        answered(Answers(prompted=40, tuned={100: 50}))
        decision = decide(with_rows(make_job, test=20))
        assert rule_of(decision) == ("collect", "tuning_pays")
        assert decision.conclusion.kind == "test"
        assert (
            "With 20 test cases, a comparison detects differences of"
            in (decision.conclusion.reasons[0])
        )

    def test_the_base_ends_first(
        self, make_job: Any, answered: Put, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UNITUNE_TODAY", "2026-11-28")
        models = {"openai": "gpt-4.1-mini", "fake": "base"}
        job = with_rows(make_job, backend="openai", model=models)
        answered(Answers(prompted=30, tuned={100: 50}))
        alone = decide(job)
        assert rule_of(alone) == ("cannot tell", "nowhere")
        assert runs() == []
        both = decide(job, ["openai", "fake"])
        assert rule_of(both) == ("tune", "tuning_pays")
        assert both.conclusion.backend == "fake"


def rule_of(decision: Decision) -> tuple[str, str]:
    return decision.conclusion.answer, decision.conclusion.rule


def test_the_same_call_measures_nothing_again(job: Job, answered: Put) -> None:
    answers = answered(Answers(prompted=34, tuned=RISING))
    first = decide(job)
    asked = answers.asked.total()
    again = decide(job)
    assert (asked, 9) == (answers.asked.total(), len(runs()))
    assert first.conclusion == again.conclusion


def test_what_exceeds_the_budget_is_not_measured(job: Job, answered: Put) -> None:
    answered(Answers(prompted=30, tuned={100: 50}))

    def refuse(what: str, _: object) -> None:
        if what == "training":
            raise OverBudget("the training costs money: $3.")

    decision = measure_and_conclude(
        resolve(job, ()),
        Choices(
            points=3,
            seeds=3,
            launch=lambda _: pytest.fail("nothing is launched"),
            agree=refuse,
            answers=AnswerOptions(),
            shown=lambda: nullcontext(ignore),
        ),
    )
    assert rule_of(decision) == ("cannot tell", "unmeasured_training")
    assert decision.notes == ("the training costs money: $3.",)
    assert decision.evidence.best_prompt.value == 0.5
    written = (decision.folder / "decision.json").read_text(encoding="utf-8")
    assert decision.evidence == Decision.model_validate_json(written).evidence


def test_words_and_page(job: Job, answered: Put) -> None:
    answered(Answers(prompted=34, tuned=RISING))
    decision = decide(job)
    (option,) = decision.evidence.options
    terms = [fact.term for fact in report.option_facts(option)]
    assert terms[:6] == ["Base", "Total cost", "Prompt", "Tuned", "200 rows", "400 rows"]
    assert terms[6].startswith("For 61.7")
    path = write_page(decision.folder / report.PAGE, report.describe(decision))
    page = path.read_text(encoding="utf-8").replace("\u00a0", " ")
    for sentence in (decision.conclusion.headline, *decision.conclusion.changes):
        assert sentence in page


def test_labels_that_are_missed_most_are_named(job: Job, answered: Put) -> None:
    answers = Answers(prompted=34, tuned=RISING)
    answered(answers)
    answers.never = "fraud"
    decision = decide(job)
    assert decision.evidence.options[0].weakest[0] == "fraud"


def test_a_sweep_is_refused(job: Job) -> None:
    swept = Job.model_validate({**dict(job), "tuning": {"learning_rate": [1e-4, 1e-3]}})
    with pytest.raises(UserError, match="a decision is about one setting"):
        decide(swept)


def test_answers_of_prompts_are_part_of_the_budget(job: Job, answered: Put) -> None:
    answered(Answers(prompted=30, tuned={100: 50}))
    prices = {"zero-shot": {"input": 1_000, "output": 0}}  # a cent a request, of 10 tokens
    evaluate = job.evaluate.model_validate({**dict(job.evaluate), "prices": prices})
    budgets: dict[str, Decimal] = {}

    def note(what: str, judged: ResolvedJob) -> None:
        assert judged.job.evaluate.budget is not None
        budgets[what] = judged.job.evaluate.budget.usd
        if what == "training":
            raise OverBudget("enough")

    choices = Choices(
        points=3,
        seeds=3,
        budget=Decimal(10),
        launch=lambda _: pytest.fail("nothing is launched"),
        agree=note,
        answers=AnswerOptions(allow_unpriced=True),
        shown=lambda: nullcontext(ignore),
    )
    priced = job.model_copy(update={"evaluate": evaluate})
    measure_and_conclude(resolve(priced, ()), choices)
    assert budgets == {"prompts": Decimal(10), "training": Decimal("9.4")}


def test_each_backend_has_its_own_recorded_answers(job: Job, answered: Put) -> None:
    answered(Answers(prompted=34, tuned=RISING))
    decision = decide(job)
    curve = decision.evidence.options[0].curve
    assert (decision.folder / "fake" / "rows.jsonl").exists()
    assert curve is not None
    assert (decision.folder / "fake" / "learning-curve.json").exists()


def test_validation_rows_that_are_trained_on_come_first(make_job: Any, answered: Put) -> None:
    """A model that knows its training rows by heart would seem better than the prompt."""
    answers = answered(Answers(prompted=30, tuned={100: 60}))
    job = with_rows(make_job)
    lines = (job.folder / "dev.jsonl").read_text().splitlines()[:20]
    with (job.folder / "train.jsonl").open("a") as train:
        train.write("".join(f"{line}\n" for line in lines))
    decision = decide(job)
    assert rule_of(decision) == ("cannot tell", "unusable")
    assert "(and 19 more rows: lines 2, 3, 4, …)" in decision.conclusion.reasons[0]
    assert answers.asked.total() == 0


def test_wrong_labels_are_counted_before_a_goal_that_they_rule_out(
    make_job: Any, answered: Put
) -> None:
    answered(Answers(prompted=30, tuned={100: 50}))
    draw = random.Random(0)  # noqa: S311 - repeatable, not secret

    def row(at: int) -> tuple[str, str]:
        true = draw.choice(LABELS)
        words = " ".join(true + draw.choice("abcdef") for _ in range(4))
        return f"{words} {at}", draw.choice(LABELS) if at % 5 < 2 else true

    job = make_job(
        {"scorers": ["exact"], "contenders": ["zero-shot", "tuned"]},
        train=[row(at) for at in range(200)],
        dev=[(f"dev {at}", LABELS[at % 4]) for at in range(DEV)],
        test=[(f"test {at}", LABELS[at % 4]) for at in range(TEST)],
    )
    decision = decide(job, goal=0.9)
    assert rule_of(decision) == ("cannot tell", "labels_cap_scores")
    assert 0.1 < decision.evidence.wrong_labels < 0.3
    assert any("look mislabelled" in reason for reason in decision.conclusion.reasons)
