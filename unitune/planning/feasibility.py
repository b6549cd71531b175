"""Check a job against a backend's offer, and propose a base model when the job names none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Literal

from unitune.backends import registry
from unitune.backends.offer import Offer, OfferedModel, Terms
from unitune.cost.machine_hours import parameters_in
from unitune.cost.prices.book import PriceBook
from unitune.documents import Spec
from unitune.errors import JobError, nearest
from unitune.findings import Finding, error, note, of_runs, warning
from unitune.job.job import Job, Preference, Tuning
from unitune.planning.tiers import tier_findings
from unitune.scorers.functions import UserFunction
from unitune.text import listed
from unitune.workspace.user_settings import today

OTHER_BACKEND_HELPS = frozenset(  # refusals whose fix names other backends
    {
        "closed",
        "closed-backend",
        "refused-model",
        "stopped",
        "unsupported-method",
        "unsupported-model",
    }
)
# Code of the finding that a vendor no longer accepts some customers' trainings
CLOSED_TO = "closed-to"
NOT_ALL = "not open to all"
FOR_TESTS = "fake"
NO_TRAINING_ROWS = "no-training-rows"  # code of the finding that a job has no training file
Customers = Literal["all", "some"]
# Higher values get a warning: 100 times the usual LoRA rate, 10 times the usual epochs
HIGH_LEARNING_RATE, MANY_EPOCHS = 0.1, 50
SOON = timedelta(days=90)  # dates within this period are warnings, later ones notes

FAR = 5  # difference in doublings from which a base counts like one of unknown size


def offer_findings(job: Job, offer: Offer, day: date) -> tuple[Finding, ...]:
    """Return the findings of a backend's offer against a job on a day, regardless of its rows."""
    findings = _against(job, offer, day)
    if not any(finding.code in OTHER_BACKEND_HELPS for finding in findings):
        return findings
    others = _other_backends(job, offer, day)
    return tuple(
        finding.model_copy(update={"fix": f"{finding.fix} {others}".strip()})
        if finding.code in OTHER_BACKEND_HELPS
        else finding
        for finding in findings
    )


def _against(job: Job, offer: Offer, day: date) -> tuple[Finding, ...]:
    terms = offer.terms(job.base_model)
    if job.data.train is None:
        what = f"job {job.name!r} has no training rows; it can only be compared."
        return (error(NO_TRAINING_ROWS, what, "Name a file under `data.train`."),)
    if offer.closed is not None and day >= offer.closed.by:
        return (error("closed-backend", offer.unavailable),)
    if not offer.methods:
        return (error("unsupported-method", offer.summary),)
    if terms.refusal is not None:
        what = f"{offer.name} cannot tune {job.base_model!r}: {terms.refusal}"
        return (error("refused-model", what),)
    most_epochs = terms.limits.epochs_most
    runs = (job.variants() or {"": job}).items()
    return (
        *_model_findings(job, offer, terms),
        *of_runs({name: _setting_findings(run, offer, most_epochs) for name, run in runs}),
        *tier_findings(job, offer),
        *_pause_findings(job, offer, terms),
        *(_date_findings(offer, terms.model, day) if terms.model else ()),
    )


def same_base_elsewhere(job: Job, own: Offer, day: date) -> Iterator[tuple[Offer, str, Customers]]:
    """Yield other backends that tune the same weights, with model names and allowed customers."""
    names = {
        job.base_model,
        *_names(own.model(job.base_model) or OfferedModel(name=job.base_model)),
    }
    for offer in _others(job):
        for name in _same_weights(offer, names):
            if customers := takes(job, offer, name, day):
                yield offer, name, customers
                break


def _others(job: Job) -> Iterator[Offer]:
    offers = map(registry.offer, registry.backend_names())
    return (offer for offer in offers if offer.name not in (job.backend, FOR_TESTS))


def _other_backends(job: Job, own: Offer, day: date) -> str:
    """Return sentences that name the other backends that accept a job, or an empty string."""
    same = {
        offer.name: f"{offer.name} ({name if customers == 'all' else f'{name}, {NOT_ALL}'})"
        for offer, name, customers in same_base_elsewhere(job, own, day)
    }
    other: list[str] = []
    for offer in _others(job):
        others = [takes(job, offer, each.name, day) for each in offer.models]
        if offer.name not in same and any(others):
            other.append(offer.name if "all" in others else f"{offer.name} ({NOT_ALL})")
    sentences = [f"You can tune the same model with {listed([*same.values()])}."] if same else []
    if other:
        verb = "takes" if len(other) == 1 else "take"
        sentences.append(f"With another base model, {listed(other)} {verb} the job.")
    return " ".join(sentences)


def takes(job: Job, offer: Offer, model: str, day: date) -> Customers | None:
    """Return which customers of a backend can run the job with this base model."""
    moved = job.model_copy(update={"backend": offer.name, "model": model})
    findings = _against(moved, offer, day)
    if any(finding.severity == "error" for finding in findings):
        return None
    return "some" if any(finding.code == CLOSED_TO for finding in findings) else "all"


def _same_weights(offer: Offer, names: set[str]) -> Iterator[str]:
    folded = {name.casefold() for name in names}
    for model in offer.models:
        if folded & {name.casefold() for name in _names(model)}:
            yield model.name
    if offer.hub_models:
        yield from sorted(name for name in names if name.count("/") == 1)


def _names(model: OfferedModel) -> set[str]:
    return {model.name, *model.aliases}


def explicit_settings(tuning: Tuning) -> list[str]:
    """Return the dotted names of the settings that a job sets."""
    names: list[str] = []
    for name, value in tuning:
        if value == Tuning.model_fields[name].default:
            continue
        inner = value if isinstance(value, Spec) else ()
        names += [f"{name}.{key}" for key, each in inner if each not in ("auto", None)] or [name]
    return names


def _model_findings(job: Job, offer: Offer, terms: Terms) -> Iterator[Finding]:
    if job.method not in terms.methods:
        what = f"{offer.name} cannot do {job.method}"
        what += f" with {job.base_model}" if job.method in offer.methods else ""
        yield _refusal("method", what, terms.methods)
    if job.method == "rft" and job.evaluate.dialogue is not None and not offer.trains_here:
        what = f"{offer.name} rewards single answers, not those of evaluate.dialogue."
        yield error("rft-dialogue", what, "Train on the backend local, or remove the dialogue.")
    if terms.model is not None:
        return
    name, names = job.base_model, tuple(sorted(each.name for each in offer.models))
    if offer.is_own and offer.any_model:
        vendors = [] if "/" in name or job.path(name).exists() else _vendors_of(job)
        if vendors:
            what = f"{offer.name} does not have {name!r}; it is available from {listed(vendors)}."
            yield error("unsupported-model", what, f"Write `backend: {vendors[0]}`.")
        return
    guess = nearest(name, names)
    if not offer.any_model or (names and not is_open(job, offer)):
        what = f"{offer.name} cannot tune {name!r}"
        what += f"; the closest model is {guess!r}" if guess else ", and offers no equivalent"
        refusal = _refusal("model", what, names)
        insist = f" To request it anyway, write `model: {{{offer.name}: {name}}}`."
        yield refusal.model_copy(update={"fix": refusal.fix + insist * offer.any_model})
    elif names:
        what = f"model {name!r} is not in the list of {offer.name}'s models"
        what += f"; the closest is {guess!r}" if guess else ""
        yield warning(
            "unlisted-model",
            f"{what}. It is requested by this name and may be refused.",
            f"Known models: {', '.join(names)}. To name a model per backend, write model: "
            f"{{{offer.name}: NAME, …}}.",
        )


def is_open(job: Job, offer: Offer) -> bool:
    """Return whether a job may request a base model that the backend does not list."""
    named = not isinstance(job.model, str)
    pattern = offer.open_names or "$^"
    return offer.any_model and (
        offer.is_own or named or re.search(pattern, job.base_model) is not None
    )


def _vendors_of(job: Job) -> list[str]:
    """Return the backends that list a job's model, even if they cannot tune it."""
    others = ((each.name, each.terms(job.base_model)) for each in _others(job) if each.methods)
    return [name for name, terms in others if terms.model or terms.refusal]


def _setting_findings(job: Job, offer: Offer, most_epochs: int | None) -> Iterator[Finding]:
    for setting in explicit_settings(job.tuning):
        if setting == "seed" and setting not in offer.supported_settings:
            yield warning(
                "no-seed",
                f"{offer.name} does not accept a seed, so repeating a training may produce a "
                "different model.",
                "tuning.seed still decides which rows are held out and which are used as few-shot "
                "examples.",
            )
        elif setting not in (*offer.supported_settings, "preference.loss"):
            yield _refusal(
                "setting",
                f"{offer.name} does not support tuning.{setting}",
                offer.supported_settings,
            )
    if job.data.chat_template and not offer.trains_here:
        what = (
            f"{offer.name} trains with its own chat template, so data.chat_template cannot be used."
        )
        yield error(
            "chat-template", what, "Remove data.chat_template, or train with backend: local."
        )
    if refusal := _warmup_refusal(job.tuning.warmup, offer):
        yield error("warmup", refusal, "Change the value, or use auto.")
    if job.method == "dpo":
        yield from _preference_findings(job.tuning.preference, offer)
    yield from _value_findings(job, offer, most_epochs)


def _value_findings(job: Job, offer: Offer, most_epochs: int | None) -> Iterator[Finding]:
    epochs, rate = job.tuning.epochs, job.tuning.learning_rate
    if isinstance(rate, float) and rate > HIGH_LEARNING_RATE:
        what = (
            f"tuning.learning_rate is {rate:g}; usual rates are 0.00001 to 0.001, and training "
            "diverges far "
        )
        yield warning("high-learning-rate", f"{what}above.", "Lower it, or use auto.")
    if isinstance(epochs, float) and not offer.is_own:
        what = f"tuning.epochs is {epochs:g}; {offer.name} accepts only whole numbers."
        yield error("fractional-epochs", what, "Use a whole number or auto.")
    for name in job.tuning.callbacks:
        try:
            UserFunction(name, job.folder, f"the callback {name!r}").check()
        except JobError as refusal:
            yield error("callback", str(refusal))
    if epochs != "auto" and epochs > MANY_EPOCHS:
        what = (
            f"tuning.epochs is {epochs}, so each row is trained on {epochs} times; 1 to 5 epochs "
            "are "
        )
        yield warning("many-epochs", f"{what}usual.", "Lower it, or use auto.")
    if most_epochs is not None and epochs != "auto" and epochs > most_epochs:
        yield error(
            "too-many-epochs",
            f"tuning.epochs is {epochs}; {offer.name} accepts at most {most_epochs}.",
            "Lower it, or use auto.",
        )


def _warmup_refusal(warmup: float | str, offer: Offer) -> str | None:
    if not isinstance(warmup, int | float) or not warmup or offer.warmup_as is None:
        return None
    given, wanted = (
        ("steps", "a fraction below 1") if warmup >= 1 else ("share", "a number of steps")
    )
    if offer.warmup_as == given:
        return None
    return f"tuning.warmup is {warmup:g}; {offer.name} accepts {wanted}."


def _preference_findings(preference: Preference, offer: Offer) -> Iterator[Finding]:
    loss, beta = preference.loss, preference.beta
    losses = offer.preference_losses
    if loss not in ("auto", *losses):
        yield _refusal(
            "loss", f"{offer.name} does not support tuning.preference.loss {loss}", (*losses,)
        )
    beta_range = losses.get("dpo" if loss == "auto" else loss)
    if beta_range and beta != "auto" and (allowed := beta_range.refusal(beta)):
        yield error(
            "beta-range",
            f"tuning.preference.beta is {beta:g}; {offer.name} accepts {allowed}.",
            "Change it, or use auto.",
        )


def _date_findings(offer: Offer, model: OfferedModel, day: date) -> Iterator[Finding]:
    closes, retires_on = model.tunable_until, model.retires_on
    if closes is not None and day >= closes:
        what = f"{offer.name} ended tuning of {model.name} on {closes} (today is {day})."
        yield error("closed", what)
    else:
        for closed in model.closed_to:
            when = "since" if day >= closed.since else "from"
            what = (
                f"{offer.name} does not accept trainings of {model.name} from {closed.whom}, "
                f"{when} "
            )
            yield warning(CLOSED_TO, f"{what}{closed.since}.")
        if closes is not None:
            what = (
                f"{offer.name} accepts trainings of {model.name} until {closes}; from that day on "
            )
            yield _by_date(closes, day)("closes", f"{what}none can be started.")
    if retires_on is not None and day >= retires_on:
        yield error("stopped", f"{offer.name} switched {model.name} off on {retires_on}.")
    elif retires_on is not None:
        days = (retires_on - day).days
        yield _by_date(retires_on, day)(
            "stops",
            f"{model.name} and all models tuned from it are switched off on {retires_on}, in "
            f"{days} days.",
            "Plan a replacement; the same job can be trained on another backend.",
        )


def _pause_findings(job: Job, offer: Offer, terms: Terms) -> Iterator[Finding]:
    usd = terms.billing.pauses_at_usd
    if usd is not None and job.method == "rft":
        what = f"{offer.name} pauses a training that has cost ${usd:,}, graders included, and saves"
        yield note("pauses", f"{what} a checkpoint that can be deployed. Resumed, it has no limit.")


def _by_date(when: date, day: date) -> Callable[..., Finding]:
    return warning if when - day < SOON else note


def _refusal(what: str, message: str, allowed: tuple[str, ...]) -> Finding:
    return error(
        f"unsupported-{what}",
        f"{message}.",
        f"Allowed: {', '.join(allowed) or 'nothing'}. Change the job or choose a backend that "
        "supports it.",
    )


def proposed_bases(job: Job, book: PriceBook) -> tuple[str, ...]:
    """Return the base models of a job's backend that are closest to the job's model, closest first.

    Models that support the job come first, then those with a price, then the closest in size (read
    from names), then the cheapest: one for each row format. Empty if the job names a base of this
    backend.
    """
    offer = book.offer(job.backend)
    if isinstance(job.model, str):
        names, refusal = [job.model], offer.terms(job.model).refusal
        if offer.model(job.model) or refusal or is_open(job, offer):
            return ()
    else:
        names = [*job.model.values()]
        if job.backend in job.model:
            return ()
    if offer.hub_models and (on_hub := [name for name in names if name.count("/") == 1]):
        return tuple(on_hub[:1])
    size = _size(names)
    options = job.options.get(offer.name, {})

    def distance(model: OfferedModel) -> tuple[bool, int, Decimal]:
        row = book.find(
            offer.name,
            model.name,
            "training",
            method=job.method,
            tier=offer.tier(options, model.name),
            on=today(),
        )
        theirs = _size((model.name, *model.aliases))
        doublings = round(abs(math.log2(theirs / size))) if theirs and size else FAR
        return row is None, min(doublings, FAR), row.usd if row else Decimal(0)

    usable = [model for model in offer.models if takes(job, offer, model.name, today())]
    ordered = sorted(usable or offer.models[:1], key=distance)
    formats = ((offer.terms(model.name).formats.get(job.method), model.name) for model in ordered)
    return tuple(dict(reversed([*formats])).values())[::-1]


def _size(names: Iterable[str]) -> int | None:
    """Return the number of parameters in the first of a model's names that has one."""
    return next(filter(None, (parameters_in(name, active=False) for name in names)), None)
