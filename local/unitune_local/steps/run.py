"""Run one training at a vendor of steps: specify a launch, and train in the worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path

from pydantic import JsonValue

from unitune.backends.credentials import key_in
from unitune.backends.output_limit import longest_expected
from unitune.backends.protocol import Launch
from unitune.backends.retry import delays, retry_delay, sleep
from unitune.cost.prices.book import PriceLookup, book_for
from unitune.data.dataset import Dataset
from unitune.errors import BackendError, DataError, Mismatch
from unitune.models import TunedModel
from unitune.security.redaction import redacted
from unitune.workspace.user_settings import today
from unitune_local.data.batches import Batches
from unitune_local.data.rows import read_rows, rows_of
from unitune_local.grading import Grading, Reward, RewardGrader
from unitune_local.job_folder import EventLog, JobFolder, Kind, Note, Result, read_events
from unitune_local.models import store
from unitune_local.models.model import load_tokenizer
from unitune_local.models.size import dimensions_of
from unitune_local.settings import Settings, resolve
from unitune_local.spec import DataFile, Spec
from unitune_local.steps.machine import CHARGED, VendorMachine, ending_tokens
from unitune_local.steps.vendor import (
    Loss,
    Meter,
    Prices,
    StepOptions,
    StepSpec,
    StepVendor,
    connect,
)
from unitune_local.training.run import examples, rendered, spec_in
from unitune_local.training.selection import Evaluations
from unitune_local.training.stepping import run_steps

# Attempts to continue after failures that may pass; their pauses add up to 7 minutes
RECOVERIES = 10
LONGEST_PAUSE_SECONDS = 60.0


class Specified(Spec):
    """Specification of a training at a vendor of steps."""

    steps: StepSpec


def prepare(launch: Launch, about: StepSpec, longest: int | None) -> Specified:
    """Return the specification of a training; nothing is sent to the vendor.

    Args:
        launch: What is launched.
        about: What the backend knows of the vendor; its contract is completed.
        longest: Longest sequence that the vendor trains on, in tokens; None if unknown.

    Raises:
        DataError: Rows cannot be trained on; the findings state which and why.
        NotFoundError: The tokenizer of the base model does not exist.
    """
    job = launch.job
    folder = store.without_weights(job.base_model)
    train = read_rows(Path(launch.training.ref))
    held_out = launch.validation
    validation = read_rows(Path(held_out.ref)) if held_out else Dataset("validation", ())
    answer = longest_expected(train) if job.method == "rft" else 0
    base = dimensions_of(folder, job.tuning.sequence_length)
    settings = resolve(
        job, replace(base, context=min(base.context, longest or base.context)), None, answer
    )
    chat = settings.chat.model_copy(update={"day": str(today())})
    settings = settings.model_copy(update={"chat": chat})
    tokenizer = load_tokenizer(folder, chat)
    made = [rows_of(settings, tokenizer, dataset) for dataset in (train, validation)]
    findings = tuple(finding for each in made for finding in each.findings)
    if wrong := tuple(finding for finding in findings if finding.severity == "error"):
        raise DataError(f"rows cannot be trained on; the first: {wrong[0]}", wrong)
    if not made[0].rows:
        raise DataError("no row can be trained on. Run `unitune plan` to see why.", findings)
    weights = job.tuning.reward.weights or {}
    return Specified(
        base=job.base_model,
        base_path=folder,
        base_fingerprint=store.fingerprint(folder),
        training=DataFile(path=Path(launch.training.ref), sha256=launch.training.sha256),
        validation=DataFile(path=Path(held_out.ref), sha256=held_out.sha256) if held_out else None,
        data_fingerprint=train.fingerprint,
        settings=settings,
        rewards=tuple(
            Grading.of(reward, job.folder, weights.get(reward.name, 1.0)) for reward in job.rewards
        ),
        folder=job.folder.resolve(),
        steps=about.model_copy(
            update={
                "prices": _prices(launch),
                "contract": about.contract.model_copy(
                    update={
                        "rank": settings.rank,
                        "seed": settings.seed,
                        "stops": tuple(sorted(ending_tokens(tokenizer))),
                    }
                ),
            }
        ),
    )


def _prices(launch: Launch) -> Prices:
    job = launch.job
    lookup = PriceLookup(book_for(job), job.backend, job.base_model, today(), job.method)
    train = lookup.find("training")
    prefill, sample = (lookup.tokens(kind, tuned=True) for kind in ("input", "output"))
    return Prices(
        train=train.usd if train and train.per == "million-tokens" else None,
        prefill=prefill and prefill.usd,
        sample=sample and sample.usd,
    )


def run_training(folder: JobFolder, log: EventLog) -> Result | None:
    """Train by a folder's specification, from the newest checkpoint; return None if paused.

    Raises:
        Mismatch: Tokenizer or rows have changed since the submit.
        RunFailed: The training ended without a model.
        BackendError: The vendor did not do its part; a resume continues.
    """
    spec = spec_in(folder, Specified)
    steps = spec.steps
    vendor = connect(steps.adapter, steps.contract, key_in(steps.key_variable))
    meter = Meter(steps.prices)
    name = None

    def note(kind: Kind, data: dict[str, JsonValue]) -> None:
        log.write(kind, data)

    with noting_warnings(note, steps.sdk):
        try:
            name = _recovering(
                lambda: vendor.find().model or _trained(spec, vendor, meter, folder, note), note
            )
        finally:
            with suppress(BackendError):  # a session ends some time after its process
                vendor.finish("success" if name else "interrupted")
    if name is None:
        return Result(state="cancelled") if folder.cancel.exists() else None
    model = TunedModel(
        backend=steps.backend,
        name=name if steps.contract.url is None else f"{name}@{steps.contract.url}",
        base=spec.base,
        base_fingerprint=spec.base_fingerprint,
        data_fingerprint=spec.data_fingerprint,
    )
    steps_made = [each for each in read_events(folder.events, "").events if each.kind == "step"]
    return Result(
        state="succeeded",
        model=model,
        billed_tokens=sum(int(each.number(CHARGED) or 0) for each in steps_made) or None,
        billed_usd=_billed(vendor, meter, note),
    )


def _recovering(train: Callable[[], str | None], note: Note) -> str | None:
    """Train, and after a failure that may pass, train again from the newest checkpoint."""
    for pause in islice(delays(LONGEST_PAUSE_SECONDS), RECOVERIES):
        try:
            return train()
        except BackendError as error:
            if not error.is_retryable:
                raise
            note("warning", {"text": f"{error} The training continues from the newest checkpoint."})
            sleep(retry_delay(error, pause))
    return train()


def _billed(vendor: StepVendor, meter: Meter, note: Note) -> Decimal | None:
    """Return the amount of the vendor's bill if it is complete."""
    try:
        bill = vendor.bill()
    except BackendError as error:
        text = f"the bill could not be read, so the cost is computed from tokens: {error}"
        note("message", {"text": text})
        return None
    # The vendor adds events by the hour, and the last ones may still be missing.
    return bill.usd if bill.trained_tokens >= meter.tokens["train"] else None


def _trained(
    spec: Specified, vendor: StepVendor, meter: Meter, folder: JobFolder, note: Note
) -> str | None:
    """Train and return the vendor's name of the model; None if stopped."""
    settings, options = spec.settings, spec.steps.options
    current = store.fingerprint(spec.base_path)
    if current != spec.base_fingerprint:
        raise Mismatch(
            f"the tokenizer of {spec.base!r} in {spec.base_path} has changed since the run was "
            "submitted. Start a new run."
        )
    tokenizer = load_tokenizer(spec.base_path, settings.chat)
    rows, validation = (
        rendered(tokenizer, file, settings) for file in (spec.training, spec.validation)
    )
    rewards = [Reward.of(each.ready(examples(spec)), each.weight) for each in spec.rewards]
    machine = VendorMachine(
        vendor=vendor,
        meter=meter,
        settings=settings,
        folder=folder.checkpoints,
        note=note,
        stop=folder.is_to_stop,
        checkpoint_usd=options.checkpoint_usd,
        policy_loss=_policy_loss(options, settings),
        grader=RewardGrader(tokenizer, rewards) if rewards else None,
        ends=frozenset(spec.steps.contract.stops),
    )
    if (ready := machine.referenced(rows, validation)) is None:
        return None
    measure = partial(machine.measure, ready[1]) if ready[1] else None
    evaluations = Evaluations(measure, settings, len(rows), note)
    batches = Batches(ready[0], settings.batch_size, settings.seed)
    if not run_steps(machine, batches, evaluations, settings, note):
        return None
    return vendor.publish()


def _policy_loss(options: StepOptions, settings: Settings) -> Loss:
    several = settings.reward is not None and settings.reward.updates > 1
    return options.policy_loss or ("ppo" if several else "importance_sampling")


@contextmanager
def noting_warnings(note: Note, *names: str) -> Generator[None]:
    """Record warnings of an SDK, such as a pause for lack of credit, as events."""

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note("warning", {"text": redacted(record.getMessage())})

    handler = Noting(logging.WARNING)
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
