"""Run one training: specify a launch, train in the worker, and save and check the adapter."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from peft import PeftModel
from pydantic import JsonValue, ValidationError
from transformers import PreTrainedTokenizerBase

from unitune.backends.launched import rank_and_size
from unitune.backends.protocol import Event, Launch, Upload
from unitune.data.dataset import Dataset
from unitune.data.example import Example
from unitune.data.tools import Tools
from unitune.errors import DataError, Mismatch, RunFailed
from unitune.files.filesystem import sha256
from unitune.job.contenders import model_of
from unitune.models import TunedModel
from unitune.scorers.functions import UserFunction
from unitune.workspace.user_settings import today
from unitune_local import machine
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rows import read_parts, read_rows, rows_of
from unitune_local.forecasting.cost import StepClock
from unitune_local.forecasting.forecast import forecast, require_memory
from unitune_local.grading import Grading, Judgements, Reward, RewardGrader
from unitune_local.job_folder import EventLog, JobFolder, Kind, Note, drop_note
from unitune_local.models import store
from unitune_local.models.adapter import (
    adapter_hash,
    check_adapter,
    checked_prompts,
    save_adapter,
    trained_model,
)
from unitune_local.models.model import load_model, load_tokenizer
from unitune_local.models.start import load_start
from unitune_local.parallel.ranks import ALONE, Ranks, joined, launched_store, noticing_loss, shard
from unitune_local.settings import Settings
from unitune_local.spec import DataFile, Spec, StartFiles
from unitune_local.training.loop import Save, TrainingContext, train
from unitune_local.training.selection import dev_score, dev_scorer


def prepare(launch: Launch) -> Spec:
    """Return the specification of a training.

    Raises:
        DataError: Rows cannot be trained on; the findings state which and why.
        Unsupported: The training does not fit into memory.
        NotFoundError: The base model does not exist.
    """
    job = launch.job
    base = store.resolve(job.base_model)
    train = read_rows(Path(launch.training.ref))
    held_out = launch.validation
    validation = read_rows(Path(held_out.ref)) if held_out else Dataset("validation", ())
    start = Path(launch.start.model.name) if launch.start else None
    expected = forecast(job, base, train, validation, start)
    wrong = tuple(finding for finding in expected.summary.findings if finding.severity == "error")
    if wrong:
        what = "nothing can be trained" if wrong[0].file is None else "rows cannot be trained on"
        raise DataError(f"{what}; {len(wrong)} errors, the first: {wrong[0]}", wrong)
    require_memory(expected.summary)
    settings = expected.batching.settings
    dialogue = job.evaluate.dialogue if job.method == "rft" else None
    # A resumed training renders its rows with the date of the launch.
    chat = settings.chat.model_copy(update={"day": str(today())})
    return Spec(
        base=job.base_model,
        base_path=base,
        base_fingerprint=store.fingerprint(base),
        training=_data_file(launch.training),
        validation=_data_file(held_out) if held_out else None,
        data_fingerprint=train.fingerprint,
        settings=settings.model_copy(update={"chat": chat}),
        dev_scorer=dev_scorer(job, validation) if settings.selection.best_by == "score" else None,
        start=StartFiles(path=start, sha256=adapter_hash(start), run=launch.start.run)
        if launch.start and start
        else None,
        rewards=tuple(
            Grading.of(reward, job.folder, (job.tuning.reward.weights or {}).get(reward.name, 1.0))
            for reward in job.rewards
        ),
        dialogue=dialogue,
        tools=Tools.of(dialogue, job.folder).fingerprint if dialogue else "",
        judge_prices={
            each.name: price
            for each in map(model_of, job.judged_rewards)
            if (price := job.evaluate.price_of(each, job.base_model)) is not None
        },
        budget_usd=job.budget and job.budget.usd,
        # The time of sampled answers does not depend on the speed of steps.
        basis=expected.batching.basis(expected.cost) if job.method != "rft" else None,
        callbacks=job.tuning.callbacks,
        folder=job.folder.resolve(),
    )


def run_training(
    folder: JobFolder, log: EventLog, rescue: Callable[[Save], None] = lambda _save: None
) -> TunedModel | None:
    """Train by a folder's specification, from its last checkpoint; return None if stopped.

    Raises:
        Mismatch: Base or rows have changed since the submit.
        RunFailed: The training ended without a model.
    """
    spec = read_spec(folder)
    limit = folder.micro_batch_limit()
    clock = StepClock(partial(note_in, log, exact=limit is None))
    if limit is not None:
        text = f"micro-batches have at most {limit} tokens, because memory ran out; losses may"
        text += " differ in the last digits from those of an uninterrupted run"
        clock.note("message", {"text": text})
    meeting: object = folder.rendezvous(os.getpid())
    if rank_and_size() is not None:
        meeting, _ = launched_store(folder.path)
    with joined(meeting, 0, spec.settings) as ranks:
        stop = folder.is_to_stop
        trained = train_rank(spec, ranks, folder.checkpoints, clock.note, stop, rescue)
    if trained is None:
        return None
    tuned = finish(trained, spec, folder.adapter, clock.note)
    if spec.basis and clock.says_enough:
        clock.keep(spec.basis, spec.settings.device)
    return tuned


def assist_training(folder: JobFolder, rank: int, meeting: object) -> None:
    """Run another process of a training, until all its steps are made."""
    spec = read_spec(folder)
    with joined(meeting, rank, spec.settings) as ranks:
        train_rank(spec, ranks, folder.checkpoints, drop_note, lambda: False)


def read_spec(folder: JobFolder) -> Spec:
    """Return the specification of a folder's training, with smaller micro-batches if needed."""
    return limited(spec_in(folder, Spec), folder)


Specified = TypeVar("Specified", bound=Spec)


def spec_in(folder: JobFolder, kind: type[Specified]) -> Specified:
    """Return the specification in a folder; raise RunFailed if it cannot be read."""
    try:
        return kind.model_validate_json(folder.spec.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise RunFailed(
            f"{folder.spec} cannot be read: it is damaged, or another version of unitune wrote it "
            f"({error.error_count()} errors, first {error.errors()[0]['msg']}). Start a new run."
        ) from error


def limited(spec: Spec, folder: JobFolder) -> Spec:
    """Return a specification with smaller micro-batches, if memory ran out before."""
    if (limit := folder.micro_batch_limit()) is None:
        return spec
    settings = spec.settings.model_copy(update={"micro_batch_tokens": limit})
    return spec.model_copy(update={"settings": settings})


class Trained(NamedTuple):
    """Result of the steps of a training."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    prompts: list[tuple[int, ...]]  # prompts for comparing the saved adapter with the model
    others: list[dict[str, float]]  # time and memory of the other ranks


def train_rank(  # noqa: PLR0913, PLR0917 - what differs between this machine and a cluster
    spec: Spec,
    ranks: Ranks,
    checkpoints: Path,
    note: Note,
    stop: Callable[[], bool],
    rescue: Callable[[Save], None] = lambda _save: None,
) -> Trained | None:
    """Train as one of the processes of a training; return None if stopped.

    The first rank records events, writes checkpoints, and calls `stop` after every step. `rescue`
    gets the function that saves the last whole step.

    Raises:
        Mismatch: Base or rows have changed since the submit.
        RunFailed: The training ended without a model.
    """
    settings = spec.settings
    current = store.fingerprint(spec.base_path)
    if current != spec.base_fingerprint:
        raise Mismatch(
            f"base model {spec.base!r} in {spec.base_path} has changed since the run was submitted "
            f"(fingerprint {current[:12]}, was {spec.base_fingerprint[:12]}). Start a new run."
        )
    note("message", {"text": f"loading {spec.base}"})
    tokenizer = load_tokenizer(spec.base_path, settings.chat)
    base = spec.base_path
    if (start := spec.start) is not None:
        note("message", {"text": f"continuing from the tuned model in {start.path}"})
        check_start(start.path, start.sha256)
        base = start.path if settings.full else base
    tuned = trainable_model(base, settings, ranks)
    if start is not None:
        load_start(tuned, start.path)
    if ranks.is_first:
        note = with_callbacks(note, spec.callbacks, spec.folder, tuned)

    rows, validation = (
        rendered(tokenizer, file, settings) for file in (spec.training, spec.validation)
    )
    if not rows:
        raise RunFailed("no row can be trained on. Run `unitune plan` to see why.")

    score = None
    if by := spec.dev_scorer:
        judge, held_out = by.grading.grader(tokenizer, examples(spec)), _dataset(spec.validation)
        score = partial(dev_score, judge, by.max_tokens, validation=held_out, ranks=ranks)
    own = JobFolder(checkpoints.parent).judgements
    others = own.parents[2].glob(f"*/*/{own.name}")  # of all runs
    judgements = Judgements(own, spec.judge_prices, spec.budget_usd, others)
    ready = ((each.ready(examples(spec)), each.weight) for each in spec.rewards)
    rewards = [Reward.of(*each, judgements) for each in ready]
    grader = RewardGrader(tokenizer, rewards, judgements, tools_of(spec)) if rewards else None
    context = TrainingContext(checkpoints, note, stop, score, grader, ranks, rescue)
    with noticing_loss(), judgements:
        finished = train(tuned, rows, validation, settings, context)
    if not finished:
        return None
    others = ranks.gather(_usage(settings.device))[1:]
    return Trained(tuned, tokenizer, checked_prompts(rows, validation), others)


def tools_of(spec: Spec) -> Tools | None:
    """Return the tools of sampled dialogues, if any. Raises Mismatch if their files changed."""
    if spec.dialogue is None:
        return None
    tools = Tools.of(spec.dialogue, spec.folder)
    if tools.fingerprint != spec.tools:
        raise Mismatch(
            "a file that evaluate.dialogue.tools names has changed since the run was submitted. "
            "Start a new run."
        )
    return tools


def with_callbacks(note: Note, names: Sequence[str], folder: Path, model: PeftModel) -> Note:
    """Return a function that records an event and then passes it to each callback, with the model.

    Raises:
        JobError: A callback cannot be imported.
    """
    functions = {name: UserFunction(name, folder, f"the callback {name}").load() for name in names}

    def note_and_call(kind: Kind, data: dict[str, JsonValue]) -> None:
        note(kind, data)
        event = Event(f"{kind}-{data.get('step', '')}", kind, time.time(), data)
        for name, function in functions.items():
            try:
                function(event, model)
            except Exception as error:
                why = f"the callback {name} raised {type(error).__name__}: {error}"
                raise RuntimeError(why) from error

    return note_and_call if functions else note


def finish(trained: Trained, spec: Spec, folder: Path, note: Note) -> TunedModel:
    """Save the adapter of a training, and check that it answers like the trained model."""
    what = "model" if spec.settings.full else "adapter"
    note("message", {"text": f"saving the {what} and loading it again"})
    save_adapter(trained.model, trained.tokenizer, spec, folder)
    worst = check_adapter(trained.model, spec, folder, trained.prompts)
    what = "weights" if spec.settings.shard else "logits"
    note("message", {"text": f"reload check passed: largest difference of {what} {worst:g}"})
    _note_usage([_usage(spec.settings.device), *trained.others], spec.settings, note)
    return TunedModel(
        backend="local",
        name=str(folder),
        base=spec.base,
        base_fingerprint=spec.base_fingerprint,
        data_fingerprint=spec.data_fingerprint,
    )


def note_in(log: EventLog, kind: Kind, data: dict[str, JsonValue], *, exact: bool = True) -> None:
    """Write an event, and a warning if a step repeated with `exact` has another figure."""
    before = log.write(kind, data).data
    figure = "loss" if "loss" in data else "reward"
    if kind == "step" and exact and before[figure] != data[figure]:
        again = f"step {data['step']}, repeated after a resume, has {figure} {data[figure]}"
        why = "this machine computes differently from the one that began the run"
        log.write("warning", {"text": f"{again} instead of {before[figure]}: {why}"})


def _usage(device: str) -> dict[str, float]:
    return {
        "cpu_seconds": time.process_time(),
        "memory_bytes": machine.peak_of_process(device),
    }


def _note_usage(ranks: Sequence[dict[str, float]], settings: Settings, note: Note) -> None:
    """Record the time and memory of all processes; with a GPU for each rank, of the largest."""
    combine = sum if settings.processes_per_device > 1 else max
    taken = {
        "seconds": machine.process_seconds(),
        "cpu_seconds": sum(rank["cpu_seconds"] for rank in ranks),
        "memory_bytes": combine(rank["memory_bytes"] for rank in ranks),
    }
    text = f"took {taken['seconds']:.0f} s and {taken['memory_bytes'] / 1e9:.2f} GB of memory"
    note("message", {"text": f"{text} at most", **taken})


def trainable_model(base: Path, settings: Settings, ranks: Ranks = ALONE) -> PeftModel:
    """Return a base model with new adapters, on its device."""
    if settings.shard:
        model = load_model(base, "auto")
    else:
        model = load_model(
            base, settings.torch_dtype, device=settings.device, quantization=settings.quantization
        )
    torch.set_num_threads(settings.threads)
    # On a CPU, deterministic kernels are as fast as others.
    exact = settings.deterministic or settings.device == "cpu"
    torch.use_deterministic_algorithms(mode=exact, warn_only=True)
    # Only code that reads uninitialised memory would need fresh memory filled.
    cast("Any", torch).utils.deterministic.fill_uninitialized_memory = False
    cast("Any", torch).manual_seed(settings.seed)
    tuned = trained_model(model, settings)
    if settings.shard:
        shard(tuned, settings.torch_dtype, ranks)
    return tuned


def rendered(
    tokenizer: PreTrainedTokenizerBase, file: DataFile | None, settings: Settings
) -> tuple[TrainingRow, ...]:
    """Return a file's rows as tokens; raise Mismatch if it has changed since the submit."""
    if file is None:
        return ()
    _refuse_changed(file)
    is_rated = settings.preference is not None and settings.preference.loss == "kto"
    # A rated row gets the answer of another row, which may be anywhere in the file.
    parts = [read_rows(file.path)] if is_rated else read_parts(file.path)
    return tuple(row for part in parts for row in rows_of(settings, tokenizer, part).rows)


def examples(spec: Spec) -> Iterator[Example]:
    """Yield the examples of a training."""
    return (row.example for part in read_parts(spec.training.path) for row in part.rows)


def _dataset(file: DataFile | None) -> Dataset:
    if file is None:
        return Dataset("none", ())
    _refuse_changed(file)
    return read_rows(file.path)


def _refuse_changed(file: DataFile) -> None:
    if (current := sha256(file.path)) != file.sha256:
        raise Mismatch(
            f"{file.path} has changed since the run was submitted (SHA-256 {current[:12]}, was "
            f"{file.sha256[:12]}). Start a new run."
        )


def check_start(adapter: Path, sha256: str) -> None:
    """Refuse an adapter that has changed since the run was submitted; raises Mismatch."""
    try:
        current = adapter_hash(adapter)
    except OSError as problem:
        raise Mismatch(
            f"the adapter that the run continues from is no longer in {adapter}: {problem}. "
            "Restore it and resume, or start a new run."
        ) from problem
    if current != sha256:
        raise Mismatch(
            f"the adapter in {adapter} has changed since the run was submitted (SHA-256 "
            f"{current[:12]}, was {sha256[:12]}). Start a new run."
        )


def _data_file(upload: Upload) -> DataFile:
    return DataFile(path=Path(upload.ref), sha256=upload.sha256)
