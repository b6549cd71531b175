"""A learning curve from its runs: nested rows, nothing twice, judged on the validation rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from support.known import known
from vendors.serving import VENDORS

from unitune.backends import registry
from unitune.backends.local_capabilities import Forecast
from unitune.curve import page as report
from unitune.curve.documents import FARTHEST, LearningCurve
from unitune.curve.measuring import judge_curve, learning_curve, with_budget
from unitune.curve.planning import curve_notes, learning_curve_of, nested_subsets
from unitune.data.dataset import Dataset
from unitune.errors import DataError, OverBudget, RunFailed, UserError
from unitune.evaluate.inference.engine import AnswerOptions
from unitune.job.job import Job
from unitune.models import Request
from unitune.planning.plan import plan
from unitune.planning.preflight import preflight
from unitune.render.html import write_page
from unitune.run.run import Run, launch, launch_sweep, runs
from unitune.testing.fake import FakeBackend

pytestmark = pytest.mark.heavy

RISING = {12: 20, 25: 34, 50: 42, 100: 47}
"""Of 60 validation rows so many are right, by the rows that a run was trained on; and one more or
less by its seed."""
BackendOf = Callable[..., Any]


@pytest.fixture
def job(make_job: Any) -> Job:
    made = make_job(
        {"scorers": ["exact"], "contenders": ["zero-shot", "tuned"]},
        train=[(f"train {at}", f"label-{at % 4}") for at in range(100)],
        dev=[(f"dev {at}", "yes") for at in range(60)],
    )
    return Job.model_validate(
        {**dict(made), "options": {"fake": {"steps": 1, "steps_per_poll": 9}}}
    )


class Learner:
    """Gets as many validation rows right as the rows say that its run was trained on."""

    def __init__(self, right: dict[int, int] | None = None) -> None:
        self.right = right or RISING
        self.kinds = Counter[str]()
        self.names: dict[str, str] = {}

    def __call__(self, model: str, request: Request) -> str:
        kind, number = request.messages[-1].text.split()
        self.kinds[kind] += 1
        if model not in self.names:
            self.names[model] = next(run.name for run in runs() if run.id in model)
        rows, seed = self.names[model].removeprefix("demo rows=").split(", seed=")
        return "yes" if int(number) < self.right[int(rows)] + int(seed) % 3 - 1 else "no"


def trained(job: Job, points: int = 4, seeds: int = 3) -> tuple[Any, list[Run]]:
    resolved = learning_curve_of(preflight(job), points, seeds)
    launched = list(launch_sweep(resolved))
    for run in launched:
        for _ in run.watch(0):
            pass
    return resolved, launched


def judged(job: Job, backend_of: BackendOf, learner: Learner, goal: float = 0.8) -> LearningCurve:
    resolved, launched = trained(job)
    backend_of(learner)
    return judge_curve(resolved, launched, goal=goal)


class TestRows:
    def test_each_size_is_half_of_the_next_and_inside_it(self, job: Job) -> None:
        train = preflight(job).splits.train
        subsets = nested_subsets(train, 4, seed=1)
        assert [len(subset) for subset in subsets] == [12, 25, 50, 100]
        for small, large in pairwise(subsets):
            lines = {row.line for row in large.rows}
            assert {row.line for row in small.rows} < lines
        assert subsets[-1] is train

    def test_each_seed_draws_its_own_and_always_the_same(self, job: Job) -> None:
        train = preflight(job).splits.train
        drawn = [nested_subsets(train, 3, seed)[0].fingerprint for seed in (1, 2, 1)]
        assert drawn[0] == drawn[2] != drawn[1]

    def test_rows_of_equal_input_stay_together(self, make_job: Any) -> None:
        rows = [(f"train {at // 5}", f"label-{at}") for at in range(100)]
        train = preflight(make_job({}, train=rows)).splits.train
        for subset in nested_subsets(train, 4, seed=0):
            assert {5} == {*Counter(row.input_key for row in subset).values()}

    @pytest.mark.parametrize("seed", range(6))
    def test_large_groups_leave_no_row_outside_the_next_size(
        self, make_job: Any, seed: int
    ) -> None:
        groups = range(27)  # of 2 to 10 rows
        rows = [(f"train {at}", f"label-{n}") for at in groups for n in range(2 + at % 9)]
        subsets = nested_subsets(preflight(make_job({}, train=rows)).splits.train, 4, seed)
        for small, large in pairwise(subsets):
            assert {row.line for row in small.rows} < {row.line for row in large.rows}
        for subset, least in zip(subsets, (20, 40, 81, 162), strict=True):
            assert least <= len(subset) < least + 10

    def test_a_single_input_cannot_be_halved(self, make_job: Any) -> None:
        rows = [("train 0", f"label-{at}") for at in range(100)]
        with pytest.raises(DataError, match="100 rows have 1 different inputs, too few for 4"):
            learning_curve_of(preflight(make_job({}, train=rows)), 4, 2)


class TestRuns:
    def test_they_are_ordinary_runs_with_their_rows_and_seeds(self, job: Job) -> None:
        resolved, launched = trained(job)
        names = [f"demo rows={rows}, seed={seed}" for rows in RISING for seed in range(3)]
        assert names == [run.name for run in launched]
        assert len({run.fingerprint for run in launched}) == 12
        for run, part in zip(launched, resolved.runs, strict=True):
            lines = (run.folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
            assert part.settings["rows"] == len(lines)
        assert job.evaluate == launched[0].job.evaluate

    def test_the_same_call_trains_and_requests_nothing_again(
        self, job: Job, backend_of: BackendOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        learner = Learner()
        with monkeypatch.context():
            first = judged(job, backend_of, learner)
        monkeypatch.undo()
        monkeypatch.setenv("UNITUNE_DIR", str(job.folder / ".unitune"))
        monkeypatch.setenv("UNITUNE_FAKE_DIR", str(job.folder / "vendor"))
        asked = learner.kinds.total()
        again = judged(job, backend_of, learner)
        assert asked == learner.kinds.total() == 12 * 60
        assert len(runs()) == 12
        assert first.points == again.points
        assert first.predictions == again.predictions

    def test_the_run_of_all_rows_is_the_jobs_own(self, job: Job) -> None:
        own = launch(job)
        _, launched = trained(job, points=3, seeds=2)
        assert own.id == launched[-2].id
        assert len(runs()) == 6

    def test_sizes_are_forecast_once_for_all_seeds(
        self, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []

        class Timed(FakeBackend):
            def forecast(self, _: Job, train: Dataset, *_more: object) -> Forecast:
                asked.append(len(train))
                seconds = dict.fromkeys(("seconds_low", "seconds_expected", "seconds_high"), 2.0)
                names = ("memory_low_bytes", "memory_bytes", "memory_high_bytes")
                memory = dict.fromkeys((*names, "memory_available_bytes"), 1)
                tokens = {"rows": len(train), "tokens": 9, "trained_tokens": 3}
                return Forecast.model_validate(
                    tokens | seconds | memory | {"epochs": 1, "steps": len(train), "settings": {}}
                )

        monkeypatch.setattr(registry, "backend", lambda _: Timed())
        planned = plan(learning_curve_of(preflight(job), 3, 3))
        assert asked == [25, 50, 100]
        steps = [run.forecast and run.forecast.steps for run in planned.runs]
        assert steps == [25] * 3 + [50] * 3 + [100] * 3
        seeds = [run.forecast and run.forecast.settings.get("seed") for run in planned.runs[:3]]
        assert seeds == [None, 1, 2]
        assert known(planned.forecast).seconds_expected == 18

    def test_a_run_that_failed_is_named(self, job: Job) -> None:
        script = {"fake": {"steps": 2, "steps_per_poll": 9, "fail_at_step": 1}}
        resolved, launched = trained(job.model_copy(update={"options": script}), 3, 2)
        with pytest.raises(RunFailed, match=r"6 of 6 runs of the learning curve have no model"):
            judge_curve(resolved, launched)


class TestJudging:
    def test_a_rising_curve_is_carried_on(self, job: Job, backend_of: BackendOf) -> None:
        learner = Learner()
        curve = judged(job, backend_of, learner)
        assert [point.rows for point in curve.points] == [12, 25, 50, 100]
        right = [60 * (point.score.value or 0) for point in curve.points]
        assert pytest.approx(right) == [20, 34, 42, 47]
        assert [run.score for run in curve.points[0].runs] == [19 / 60, 20 / 60, 21 / 60]
        assert curve.doubts == ()
        assert [each.rows for each in curve.predictions] == [200, 400]
        double = curve.predictions[0].score
        assert 47 / 60 < (double.value or 0) < 1
        check = known(curve.check)
        assert (check.rows, pytest.approx(check.measured)) == (100, 47 / 60)
        assert 100 < (known(known(curve.goal).rows).value or 0) < 100 * FARTHEST

    def test_the_test_rows_are_not_answered(self, job: Job, backend_of: BackendOf) -> None:
        learner = Learner()
        phases: set[str] = set()
        resolved, launched = trained(job, 3, 2)
        backend_of(learner)
        judge_curve(
            resolved, launched, options=AnswerOptions(progress=lambda at: phases.add(at.phase))
        )
        assert {*learner.kinds} == phases == {"dev"}

    def test_without_a_gain_it_cannot_tell(self, job: Job, backend_of: BackendOf) -> None:
        curve = judged(job, backend_of, Learner({12: 20, 25: 34, 50: 42, 100: 42}))
        assert curve.predictions == ()
        assert curve.doubts[0].startswith("From 50 to 100 rows the score changed by +0.0 points")
        assert known(curve.goal).rows is None
        assert "cannot tell" in {fact.value for fact in report.facts(curve)}

    def test_answers_in_error_are_no_curve(self, job: Job, backend_of: BackendOf) -> None:
        resolved, launched = trained(job)
        learner = Learner()

        def failing(model: str, request: Request) -> str:
            fails = request.messages[-1].text in ("dev 58", "dev 59")
            return "ERROR: overloaded" if fails else learner(model, request)

        backend_of(failing)
        curve = judge_curve(resolved, launched)
        assert "24 of 720 answers ended in an error" in curve.doubts[0]
        assert curve.points[0].runs[0].errors == 2

    def test_a_goal_that_is_reached_or_out_of_reach(self, job: Job, backend_of: BackendOf) -> None:
        resolved, launched = trained(job)
        backend_of(Learner())
        reached, ahead, beyond = (
            fact
            for goal in (0.5, 0.9, 0.9999)
            for fact in report.facts(judge_curve(resolved, launched, goal=goal))
            if fact.term.startswith("For ")
        )
        assert reached.value == "reached"
        assert reached.meaning.startswith("100 rows score 78.3 %")
        assert ahead.value.endswith(" rows")
        assert "more than 1,600" in beyond.value

    def test_words_drawing_and_page(self, job: Job, backend_of: BackendOf) -> None:
        curve = judged(job, backend_of, Learner())
        drawing = report.drawn(curve)
        ends = [drawing.x.position(rows) for rows in (12, 400)]
        assert pytest.approx(ends, abs=0.01) == [0, 100]
        distances = [drawing.x.position(rows) for rows in (100, 200, 400)]
        assert distances[1] - distances[0] == pytest.approx(distances[2] - distances[1], abs=0.02)
        path = write_page(curve.folder / report.PAGE, report.describe(curve))
        page = path.read_text(encoding="utf-8").replace("\u00a0", " ")
        assert report.headline(curve) in page
        assert page.count('class="span"') == 6
        for run in curve.points[-1].runs:
            assert run.run in page
        written = (curve.folder / "learning-curve.json").read_text(encoding="utf-8")
        assert curve.points == LearningCurve.model_validate_json(written).points


class TestRefusals:
    @pytest.mark.parametrize(("points", "seeds"), [(2, 3), (3, 1)])
    def test_too_few_points_or_seeds(self, job: Job, points: int, seeds: int) -> None:
        with pytest.raises(UserError, match="fitting the curve takes at least 3 points"):
            learning_curve_of(preflight(job), points, seeds)

    def test_a_sweep(self, job: Job) -> None:
        swept = Job.model_validate({**dict(job), "tuning": {"learning_rate": [1e-4, 1e-3]}})
        with pytest.raises(UserError, match=r"is a sweep \(lists of learning_rate\)"):
            learning_curve_of(preflight(swept), 4, 3)

    def test_too_few_rows(self, job: Job) -> None:
        with pytest.raises(DataError, match=r"of 5 sizes has 6, .* or collect 60 more rows"):
            learning_curve_of(preflight(job), 5, 3)

    @pytest.mark.parametrize("goal", [0, 1.1, 90, float("nan")])
    def test_a_goal_that_is_no_score(self, job: Job, goal: float) -> None:
        with pytest.raises(UserError, match="a score must be above 0 and at most 1"):
            learning_curve(job, goal=goal)

    @pytest.mark.parametrize(
        ("backend", "tuning", "codes"),
        [
            ("together", {}, ["epochs-by-size"]),
            ("together", {"epochs": 2}, []),
            ("local", {"max_steps": 5}, ["steps-by-size"]),
            ("local", {}, []),
        ],
    )
    def test_settings_that_pass_over_rows_unevenly_are_told(
        self, job: Job, backend: str, tuning: dict[str, int], codes: list[str]
    ) -> None:
        given = {"backend": backend, "model": "Qwen/Qwen3-8B", "tuning": tuning, "options": {}}
        resolved = preflight(Job.model_validate({**dict(job), **given}))
        assert codes == [finding.code for finding in curve_notes(resolved)]


class TestMoney:
    @pytest.fixture
    def hosted(self, job: Job) -> Job:
        prices = [{"backend": "openai", "training": 30, "input": 3, "output": 6}]
        return Job.model_validate(
            {
                **dict(job),
                "backend": "openai",
                "model": VENDORS["openai"].model,
                "prices": prices,
                "options": {},
                "tuning": {"epochs": 2},
            }
        )

    def test_the_plan_has_every_training_and_its_answers(self, hosted: Job) -> None:
        planned = plan(learning_curve_of(preflight(hosted), 3, 2))
        assert len(planned.runs) == 6
        assert planned.runs[0].settings == {"rows": 25, "seed": 0}
        estimate = known(planned.estimate)
        assert len(estimate.of("training")) == len(estimate.of("evaluation")) == 6
        assert known(planned.evaluation).requests.expected == 6 * 60
        smallest, largest = (known(estimate.of("training")[at].usd) for at in (0, -1))
        assert smallest.expected < largest.expected / 2

    def test_a_budget_is_for_trainings_and_answers_together(self, hosted: Job) -> None:
        curve = learning_curve_of(preflight(hosted), 3, 2)
        estimate = known(plan(curve).estimate)
        both = known(estimate.launch_usd).high + known(estimate.evaluation_usd).high
        job = with_budget(curve, both + 1).job
        assert both + 1 == known(job.budget).usd + known(job.evaluate.budget).usd
        with pytest.raises(OverBudget, match="6 trainings"):
            with_budget(curve, both - Decimal("0.0001"))

    def test_answers_without_a_price_never_raise_the_budget(self, hosted: Job) -> None:
        """Of trainings that may cost thousands of times the budget, none is launched."""
        prices = [{"backend": "openai", "training": 30_000}]
        half = Job.model_validate({**dict(hosted), "model": {"openai": "gpt-x"}, "prices": prices})
        curve = learning_curve_of(preflight(half), 3, 2)
        with pytest.raises(OverBudget, match=r"6 trainings may cost .* budget of \$1.00"):
            with_budget(curve, Decimal(1), allow_unpriced=True)
        with pytest.raises(OverBudget, match="the price of rows="):
            with_budget(curve, Decimal(10_000))
        job = with_budget(curve, Decimal(10_000), allow_unpriced=True).job
        assert known(job.budget).usd < 10_000
