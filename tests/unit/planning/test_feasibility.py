"""What an offer says against a job is told before anything is sent, with dates and reasons."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from unitune.backends import registry
from unitune.backends.offer import Limits, Offer, OfferedModel, Refused
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message
from unitune.data.split import Splits
from unitune.errors import UserError
from unitune.job.job import Data, Job, Tuning
from unitune.planning.feasibility import explicit_settings, offer_findings
from unitune.planning.rows import WireFile, row_findings, wire_file
from unitune.workspace.user_settings import today

DAY = date(2026, 11, 25)
OFFER = Offer(
    name="vendor",
    summary="A vendor.",
    as_of=DAY,
    methods=("sft", "dpo"),
    supported_settings=("epochs", "lora.rank"),
    models=(
        OfferedModel(
            name="small-1",
            aliases=("org/small",),
            methods=("sft",),
            tunable_until=date(2027, 1, 6),
            retires_on=date(2027, 6, 1),
        ),
        OfferedModel(name="large-1", limits=Limits(min_rows=1)),
    ),
    refuses=(Refused(pattern="^claude", reason="none can be tuned since 2026-09-10."),),
    limits=Limits(min_rows=10, max_rows=12, validation_rows_most=2, epochs_most=5),
)


def job(model: str | dict[str, str] = "small-1", **changes: object) -> Job:
    content = {"name": "demo", "model": model, "backend": "vendor", "data": Data(train="t.jsonl")}
    return Job.model_validate({**content, **changes})


def rows(name: str, count: int) -> Dataset:
    turns = (Message(role="user", content="hi"), Message(role="assistant", content="ho"))
    return Dataset(name, tuple(Row(line, Example(messages=turns)) for line in range(1, count + 1)))


def told(day: date = DAY, offer: Offer = OFFER, **changes: object) -> dict[str, str]:
    findings = offer_findings(job(**changes), offer, day)  # pyright: ignore[reportArgumentType]
    return {finding.code: finding.severity for finding in findings}


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2026, 9, 1), {"closes": "note", "stops": "note"}),
        (date(2026, 11, 25), {"closes": "warning", "stops": "note"}),
        (date(2027, 1, 5), {"closes": "warning", "stops": "note"}),
        (date(2027, 1, 6), {"closed": "error", "stops": "note"}),
        (date(2027, 6, 1), {"closed": "error", "stopped": "error"}),
    ],
)
def test_dates_are_told_before_and_refuse_after(day: date, expected: dict[str, str]) -> None:
    assert expected == told(day)


@pytest.mark.parametrize(
    ("takes", "warmup", "refused"),
    [
        ("steps", 0.1, "a number of steps"),
        ("share", 10, "a fraction below 1"),
        ("steps", 10, None),
        ("share", 0.1, None),
        ("share", 0, None),
        (None, 10, None),
        (None, 0.1, None),
    ],
)
def test_a_warmup_that_is_said_in_another_way_is_refused(
    takes: Any, warmup: float, refused: str | None
) -> None:
    offer = OFFER.model_copy(update={"supported_settings": ("warmup",), "warmup_as": takes})
    found = [
        finding.message
        for finding in offer_findings(job("large-1", tuning={"warmup": warmup}), offer, DAY)
        if finding.severity == "error"
    ]
    expected = f"tuning.warmup is {warmup:g}; vendor accepts {refused}."
    assert ([expected] if refused else []) == found


def test_a_refused_model_is_refused_with_the_reason_alone() -> None:
    (finding,) = offer_findings(job("claude-9"), OFFER, DAY)
    expected = "vendor cannot tune 'claude-9': none can be tuned since 2026-09-10."
    assert expected == finding.message


def test_a_model_may_be_tuned_by_fewer_methods_than_the_vendor_knows() -> None:
    assert "unsupported-method" not in told(model="large-1", method="dpo")
    assert told(method="dpo")["unsupported-method"] == "error"


def test_an_unlisted_model_is_a_warning_where_the_list_is_not_complete() -> None:
    """Its name fits the vendor's, or the job names it for this very vendor."""
    open_list = OFFER.model_copy(update={"any_model": True, "open_names": "^smal"})
    assert told(model="smal-1", offer=open_list) == {"unlisted-model": "warning"}
    assert told(model="meta-llama/L", offer=open_list) == {"unsupported-model": "error"}
    assert told(model={"vendor": "org/L"}, offer=open_list) == {"unlisted-model": "warning"}
    no_names = OFFER.model_copy(update={"any_model": True})
    (refused,) = offer_findings(job("smal-1"), no_names, DAY)
    assert refused.code == "unsupported-model"
    assert "write `model: {vendor: smal-1}`" in refused.fix
    (elsewhere,) = offer_findings(job("smal-1"), OFFER, DAY)
    assert (elsewhere.code, elsewhere.severity) == ("unsupported-model", "error")
    assert elsewhere.message == "vendor cannot tune 'smal-1'; the closest model is 'small-1'."
    (finding,) = offer_findings(job("smal-1"), open_list, DAY)
    assert "the closest is 'small-1'" in finding.message
    on_ones_own_machine = open_list.model_copy(update={"trains_on": "this-machine"})
    assert told(model="smal-1", offer=on_ones_own_machine) == {}


def test_a_vendors_model_on_your_own_machine_names_the_vendor() -> None:
    (refused,) = offer_findings(
        job("gpt-4o-mini", backend="local"), registry.offer("local"), today()
    )
    assert "'gpt-4o-mini'; it is available from azure and openai" in refused.message
    assert "Write `backend: azure`." in refused.fix


@pytest.mark.parametrize(
    ("setting", "code"),
    [({"learning_rate": 5}, "high-learning-rate"), ({"epochs": 400}, "many-epochs")],
)
def test_a_setting_far_beyond_the_usual_is_a_warning(setting: dict[str, Any], code: str) -> None:
    offer = registry.offer("local")
    wanted = job("smollm2-135m-instruct", backend="local", tuning=setting)
    assert [finding.code for finding in offer_findings(wanted, offer, today())] == [code]
    usual = job("smollm2-135m-instruct", backend="local", tuning={"learning_rate": 1e-3})
    assert offer_findings(usual, offer, today()) == ()


def test_who_only_answers_says_so() -> None:
    offer = OFFER.model_copy(update={"methods": (), "summary": "It only answers."})
    (finding,) = offer_findings(job(), offer, DAY)
    assert (finding.code, finding.message) == ("unsupported-method", "It only answers.")


def test_more_epochs_than_the_vendor_makes_are_refused() -> None:
    assert "too-many-epochs" not in told(tuning={"epochs": 5})
    assert told(tuning={"epochs": 6})["too-many-epochs"] == "error"


def test_auto_adapts_and_only_an_explicit_setting_is_refused() -> None:
    """A seed that the vendor does not take is a warning: one job file must run anywhere."""
    explicit = {"epochs": 2, "seed": 0, "lora": {"rank": 8, "dropout": 0.0}}
    refused, seed = offer_findings(job("large-1", tuning=explicit), OFFER, DAY)
    assert (refused.code, refused.severity) == ("unsupported-setting", "error")
    assert (seed.code, seed.severity) == ("no-seed", "warning")
    assert refused.message == "vendor does not support tuning.lora.dropout."
    assert told(model="large-1", tuning={}) == {}


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [
        ({"epochs": 1, "lora": {"rank": 1}}, ["epochs", "lora.rank"]),
        ({"early_stopping": True}, ["early_stopping"]),
        ({"early_stopping": {}}, ["early_stopping"]),
        ({"early_stopping": False}, []),
        (
            {"early_stopping": {"patience": 2, "min_delta": 0.1}},
            ["early_stopping.patience", "early_stopping.min_delta"],
        ),
    ],
)
def test_explicit_settings_are_dotted(tuning: object, expected: list[str]) -> None:
    """Some vendors take no more than whether early stopping is on."""
    assert expected == explicit_settings(Tuning.model_validate(tuning))


def test_a_model_is_listed_under_its_aliases() -> None:
    assert OFFER.terms("small-1") == OFFER.terms("org/small")
    assert OFFER.terms("other").model is None


def files(splits: Splits) -> dict[str, WireFile]:
    return {"train.jsonl": wire_file(splits.train, None)}


@pytest.mark.parametrize(
    ("train", "validation", "expected"),
    [(10, 2, []), (12, 0, []), (9, 0, ["row-count"]), (13, 3, ["row-count", "row-count"])],
)
def test_rows_are_counted_against_the_limits(
    train: int, validation: int, expected: list[str]
) -> None:
    splits = Splits(rows("train.jsonl", train), rows("dev.jsonl", validation), None)
    found = row_findings("vendor", OFFER.terms("small-1"), splits, files(splits))
    assert expected == [finding.code for finding in found]


def test_a_file_larger_than_the_vendor_takes_is_refused() -> None:
    limits = Limits(file_bytes=100)
    offer = OFFER.model_copy(update={"limits": limits})
    splits = Splits(rows("train.jsonl", 10), rows("dev.jsonl", 0), None)
    (finding,) = row_findings("vendor", offer.terms("small-1"), splits, files(splits))
    assert finding.code == "file-too-large"
    assert "100" in finding.message


def test_today_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", "2027-01-07")
    assert date(2027, 1, 7) == today()
    monkeypatch.setenv("UNITUNE_TODAY", "tomorrow")
    with pytest.raises(UserError, match="YYYY-MM-DD"):
        today()


@pytest.mark.parametrize(
    ("backend", "preference", "refusal"),
    [
        ("openai", {"beta": 2}, None),
        ("openai", {"beta": 2.1}, "tuning.preference.beta is 2.1; openai accepts at most 2"),
        ("openai", {"loss": "simpo"}, "does not support tuning.preference.loss simpo"),
        ("openai", {"nll_weight": 1}, "does not support tuning.preference.nll_weight"),
        ("fireworks", {"loss": "orpo", "beta": 0.4}, None),
        ("fireworks", {"beta": 0.5}, "fireworks accepts below 0.5"),
        ("together", {"loss": "simpo", "margin": 1}, None),
        ("together", {"loss": "ipo"}, "Allowed: dpo, simpo"),
        ("local", {"loss": "robust", "label_smoothing": 0.1, "nll_weight": 1}, None),
    ],
)
def test_a_preference_that_a_vendor_cannot_honour_is_refused(
    backend: str, preference: dict[str, object], refusal: str | None
) -> None:
    """Ranges: OpenAI's description, (0, 2]; fireworks-ai 1.2.30, below 0.5."""
    offer = registry.offer(backend)
    names = [model.name for model in offer.models if "dpo" in offer.terms(model.name).methods]
    made = job(names[0], backend=backend, method="dpo", tuning={"preference": preference})
    errors = [str(each) for each in offer_findings(made, offer, DAY) if each.severity == "error"]
    assert (refusal is None) == (errors == [])
    assert refusal is None or refusal in errors[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "sft"}, "tuning.preference is for method dpo"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing is for loss dpo, robust; not"),
        ({"margin": 1}, "margin is for loss simpo"),
    ],
)
def test_a_preference_without_its_loss_is_no_job(changes: dict[str, object], message: str) -> None:
    method = changes.pop("method", "dpo")
    preference = changes or {"beta": 0.1}
    with pytest.raises(ValueError, match=message):
        job(method=method, tuning={"preference": preference})


@pytest.mark.parametrize(
    ("backend", "reward", "refusal"),
    [
        ("local", {"scorers": "exact", "group_size": 4, "kl": 0.1, "temperature": 0.7}, None),
        ("azure", {"scorers": "exact"}, None),  # its own check says which scorers it computes
        ("azure", {"group_size": 4}, "azure does not support tuning.reward.group_size"),
        ("azure", {"kl": 0.1}, "azure does not support tuning.reward.kl"),
        ("fireworks", {"group_size": 4, "max_tokens": 64, "temperature": 0.7}, None),
        ("fireworks", {"scorers": "exact"}, "fireworks does not support tuning.reward.scorers"),
        ("vertex", {"scorers": "exact", "group_size": 4, "max_tokens": 64}, None),  # as azure
        ("vertex", {"kl": 0.1}, "vertex does not support tuning.reward.kl"),
        ("together", {}, "together cannot do rft"),
    ],
)
def test_a_reward_that_a_vendor_cannot_honour_is_refused(
    backend: str, reward: dict[str, object], refusal: str | None
) -> None:
    offer = registry.offer(backend)
    names = [model.name for model in offer.models if "rft" in offer.terms(model.name).methods]
    name = names[0] if names else offer.models[0].name
    made = job(name, backend=backend, method="rft", tuning={"reward": reward})
    errors = [str(each) for each in offer_findings(made, offer, DAY) if each.severity == "error"]
    assert (refusal is None) == (errors == [])
    assert refusal is None or refusal in errors[0]


@pytest.mark.parametrize(
    ("method", "reward", "message"),
    [
        ("sft", {"group_size": 4}, "tuning.reward is for method rft, not for sft"),
        ("rft", {"scorers": "length"}, "tag 'length' found using 'type' does not match"),
        ("rft", {"scorers": {"type": "recorded_score", "key": "x"}}, "recorded_score has no score"),
    ],
)
def test_a_reward_that_no_answer_can_earn_is_no_job(
    method: str, reward: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        job(method=method, tuning={"reward": reward})


def test_answers_are_rewarded_by_what_decides_the_verdict_unless_the_training_says_otherwise() -> (
    None
):
    evaluate = {"scorers": ["exact", "contains"], "primary": "contains"}
    assert job(method="rft", evaluate=evaluate).reward_scorer.name == "contains"
    reward = {"scorers": {"type": "regex", "pattern": "^yes"}}
    made = job(method="rft", evaluate=evaluate, tuning={"reward": reward})
    assert made.reward_scorer.name == "regex"


def test_rated_answers_are_no_cases_to_expect() -> None:
    data = {"train": "t.jsonl", "test": 0.2}
    with pytest.raises(ValueError, match="cannot be a share with loss kto"):
        job(method="dpo", data=data, tuning={"preference": {"loss": "kto"}})


def test_a_vendor_takes_whole_epochs_alone() -> None:
    assert told(tuning={"epochs": 1.5})["fractional-epochs"] == "error"
    assert "fractional-epochs" not in told(tuning={"epochs": 2.0})
