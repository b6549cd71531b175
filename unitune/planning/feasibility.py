"""Whether a backend could do a job, from its offer alone: what plan shows and launch refuses by.

Pure functions from job, offer, date and rows to findings. An explicit setting that the backend
cannot honour is an error; only `auto` adapts. The seed is a warning: it decides here, too, which
rows are held out and shown, and at the vendor only whether a training could be repeated.

A refusal that another backend would not make names those that take the job: first those with the
same weights (offers name them by aliases, and some backends take any model of the Hugging Face
hub), then those that would train the same rows on another base.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Literal

from unitune.backends import registry
from unitune.backends.offer import Offer, OfferedModel, Terms
from unitune.errors import JobError, nearest
from unitune.findings import Finding, error, listed, note, of_runs, warning
from unitune.job.job import Job, Preference, Tuning
from unitune.scorers.user_function import UserFunction
from unitune.security.spec import Spec

OTHER_BACKEND_HELPS = frozenset(  # refusals after which one looks for another backend
    {
        "closed",
        "closed-backend",
        "refused-model",
        "stopped",
        "unsupported-method",
        "unsupported-model",
    }
)
CLOSED_TO = "closed-to"  # code of the finding that a vendor takes no trainings from some customers
NOT_ALL = "not open to all"
FOR_TESTS = "fake"
NO_TRAINING_ROWS = "no-training-rows"  # code of the finding that a job names none
Customers = Literal["all", "some"]
# More is a warning: a hundred times the usual rate of LoRA, ten times the usual epochs
HIGH_LEARNING_RATE, MANY_EPOCHS = 0.1, 50
SOON = timedelta(days=90)  # A date nearer than this is a warning, a later one a note


def offer_findings(job: Job, offer: Offer, day: date) -> tuple[Finding, ...]:
    """Return what the offer of a job's backend says against it on a day, whatever its rows."""
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
    """Return what an offer says against a job, without regard to other backends."""
    terms = offer.terms(job.base_model)
    if job.data.train is None:
        what = f"job {job.name!r} names no rows to train on; it can only be compared."
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
        *(_date_findings(offer, terms.model, day) if terms.model else ()),
    )


def same_base_elsewhere(job: Job, own: Offer, day: date) -> Iterator[tuple[Offer, str, Customers]]:
    """Yield the other backends that tune the same weights, with their name there, and for whom."""
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
    """Return in a sentence or two which other backends take a job; empty where none does."""
    same = {
        offer.name: f"{offer.name} ({name if customers == 'all' else f'{name}, {NOT_ALL}'})"
        for offer, name, customers in same_base_elsewhere(job, own, day)
    }
    other: list[str] = []
    for offer in _others(job):
        others = [takes(job, offer, each.name, day) for each in offer.models]
        if offer.name not in same and any(others):
            other.append(offer.name if "all" in others else f"{offer.name} ({NOT_ALL})")
    sentences = [f"The same model can be tuned at {listed([*same.values()])}."] if same else []
    if other:
        verb = "takes" if len(other) == 1 else "take"
        sentences.append(f"With another base {listed(other)} {verb} the job.")
    return " ".join(sentences)


def takes(job: Job, offer: Offer, model: str, day: date) -> Customers | None:
    """Return from which customers a backend takes the job with this base: all, some, or none."""
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
    """Return the dotted names of the settings that a job has set."""
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
    if terms.model is not None:
        return
    name, names = job.base_model, tuple(sorted(each.name for each in offer.models))
    if offer.is_own and offer.any_model:
        vendors = [] if "/" in name or job.path(name).exists() else _vendors_of(job)
        if vendors:
            what = f"{offer.name} has no model {name!r}, which is a model of {listed(vendors)}."
            yield error("unsupported-model", what, f"Write `backend: {vendors[0]}`.")
        return
    guess = nearest(name, names)
    if not offer.any_model or (names and not is_open(job, offer)):
        what = f"{offer.name} cannot tune {name!r}"
        what += f"; the nearest is {guess!r}" if guess else ", and offers no equivalent"
        refusal = _refusal("model", what, names)
        insist = f" To request it all the same, write `model: {{{offer.name}: {name}}}`."
        yield refusal.model_copy(update={"fix": refusal.fix + insist * offer.any_model})
    elif names:
        what = f"what is known of {offer.name} names no model {name!r}"
        what += f"; the nearest is {guess!r}" if guess else ""
        yield warning(
            "unlisted-model",
            f"{what}. It is requested by this name, and may be refused.",
            f"Known: {', '.join(names)}. A job can name a model for each backend: "
            f"model: {{{offer.name}: NAME, …}}.",
        )


def is_open(job: Job, offer: Offer) -> bool:
    """Return whether a base that a job's backend does not list may be requested there."""
    named = not isinstance(job.model, str)
    pattern = offer.open_names or "$^"
    return offer.any_model and (
        offer.is_own or named or re.search(pattern, job.base_model) is not None
    )


def _vendors_of(job: Job) -> list[str]:
    """Return the backends that know a job's model by name, even if they cannot tune it."""
    others = ((each.name, each.terms(job.base_model)) for each in _others(job) if each.methods)
    return [name for name, terms in others if terms.model or terms.refusal]


def _setting_findings(job: Job, offer: Offer, most_epochs: int | None) -> Iterator[Finding]:
    for setting in explicit_settings(job.tuning):
        if setting == "seed" and setting not in offer.supported_settings:
            yield warning(
                "no-seed",
                f"{offer.name} takes no seed; the same training there may end with another model.",
                "tuning.seed still decides which rows are held out and which are shown as shots.",
            )
        elif setting not in (*offer.supported_settings, "preference.loss"):
            yield _refusal(
                "setting", f"{offer.name} cannot honour tuning.{setting}", offer.supported_settings
            )
    if job.data.chat_template and not offer.trains_here:
        what = f"{offer.name} trains with its own chat template, and data.chat_template names one."
        yield error("chat-template", what, "Leave it out, or train with backend: local.")
    if refusal := _warmup_refusal(job.tuning.warmup, offer):
        yield error("warmup", refusal, "Say it so, or leave it to auto.")
    if job.method == "dpo":
        yield from _preference_findings(job.tuning.preference, offer)
    yield from _value_findings(job, offer, most_epochs)


def _value_findings(job: Job, offer: Offer, most_epochs: int | None) -> Iterator[Finding]:
    epochs, rate = job.tuning.epochs, job.tuning.learning_rate
    if isinstance(rate, float) and rate > HIGH_LEARNING_RATE:
        what = f"tuning.learning_rate is {rate:g}; trainings use 0.00001 to 0.001, and diverge far "
        yield warning("high-learning-rate", f"{what}above that.", "Lower it, or leave it to auto.")
    if isinstance(epochs, float) and not offer.is_own:
        what = f"tuning.epochs is {epochs:g}; {offer.name} makes whole passes over the rows."
        yield error("fractional-epochs", what, "Give a whole number, or leave it to auto.")
    for name in job.tuning.callbacks:
        try:
            UserFunction(name, job.folder, f"the callback {name!r}").check()
        except JobError as refusal:
            yield error("callback", str(refusal))
    if epochs != "auto" and epochs > MANY_EPOCHS:
        what = f"tuning.epochs is {epochs}: each row is trained on {epochs} times, and 1 to 5 are "
        yield warning("many-epochs", f"{what}usual.", "Lower it, or leave it to auto.")
    if most_epochs is not None and epochs != "auto" and epochs > most_epochs:
        yield error(
            "too-many-epochs",
            f"tuning.epochs is {epochs}; {offer.name} makes at most {most_epochs}.",
            "Lower it, or leave it to auto.",
        )


def _warmup_refusal(warmup: float | str, offer: Offer) -> str | None:
    if not isinstance(warmup, int | float) or not warmup or offer.warmup_as is None:
        return None
    given, wanted = ("steps", "a share, below 1") if warmup >= 1 else ("share", "a number of steps")
    if offer.warmup_as == given:
        return None
    return f"tuning.warmup is {warmup:g}; {offer.name} takes {wanted}."


def _preference_findings(preference: Preference, offer: Offer) -> Iterator[Finding]:
    loss, beta = preference.loss, preference.beta
    losses = offer.preference_losses
    if loss not in ("auto", *losses):
        yield _refusal(
            "loss", f"{offer.name} cannot honour tuning.preference.loss {loss}", (*losses,)
        )
    beta_range = losses.get("dpo" if loss == "auto" else loss)
    if beta_range and beta != "auto" and (allowed := beta_range.refusal(beta)):
        yield error(
            "beta-range",
            f"tuning.preference.beta is {beta:g}; {offer.name} takes {allowed}.",
            "Change it, or leave it to auto.",
        )


def _date_findings(offer: Offer, model: OfferedModel, day: date) -> Iterator[Finding]:
    closes, retires_on = model.tunable_until, model.retires_on
    if closes is not None and day >= closes:
        what = f"{offer.name} ended tuning of {model.name} on {closes} (today is {day})."
        yield error("closed", what)
    else:
        for closed in model.closed_to:
            when = "since" if day >= closed.since else "from"
            what = f"{offer.name} takes no trainings of {model.name} from {closed.whom}, {when} "
            yield warning(CLOSED_TO, f"{what}{closed.since}.")
        if closes is not None:
            what = f"{offer.name} takes trainings of {model.name} only until {closes}; from that "
            yield _by_date(closes, day)("closes", f"{what}day on none can be started.")
    if retires_on is not None and day >= retires_on:
        yield error("stopped", f"{offer.name} switched {model.name} off on {retires_on}.")
    elif retires_on is not None:
        days = (retires_on - day).days
        yield _by_date(retires_on, day)(
            "stops",
            f"{model.name} and all that is tuned from it stop on {retires_on}, in {days} days.",
            "Plan what follows it; the same job can be trained elsewhere.",
        )


def _by_date(when: date, day: date) -> Callable[..., Finding]:
    return warning if when - day < SOON else note


def _refusal(what: str, message: str, allowed: tuple[str, ...]) -> Finding:
    return error(
        f"unsupported-{what}",
        f"{message}.",
        f"It takes: {', '.join(allowed) or 'nothing'}. Change the job or choose a backend "
        "that can.",
    )
