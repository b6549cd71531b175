"""Who competes: each contender of the job, with the prompts that it chooses from on dev.

zero-shot and tuned have one prompt, the row's own messages. instructed has one more text. few-shot
has a first round of prompts, with more and more shots, and a second made from the winner of the
first: without the instructions, with other rows, and with each case's nearest rows; at most six
prompts. A model of another backend or on a server has the prompts of the kind that it names. A
tuned model may borrow the prompt that the best baseline has chosen.

The test cases have no part in a choice: nothing here can see them. All dev rows count. Where a
contender has several prompts and dev many rows, the first `SCREENING_ROWS` pick `FINALISTS`, which
answer the others too. Between equals the mean of all scorers decides, then for prompts the order of
trial, shorter first, and for baselines the effort in them, so that a tie never gives the candidate
the easier opponent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from unitune.cost.evaluation import FINALISTS
from unitune.data.example import Example
from unitune.errors import JobError
from unitune.evaluate.prompts.prompts import (
    OWN_MESSAGES,
    Nearest,
    Neighbours,
    Prompt,
    draw,
    instructions_from,
)
from unitune.job.contenders import (
    ContenderSpec,
    FewShot,
    Instructed,
    Model,
    Recorded,
    Server,
    ShotChoice,
    Tuned,
    prompt_kind,
)
from unitune.job.job import Evaluate, Job, Tuning

# Numbers of shots that `auto` tries: doubling, because each further shot gains less than the one
# before; three, so that with the second round six prompts compete on dev
LADDER = (4, 8, 16)
# `auto` tries no longer prompts (the fewest shots aside): some 4,000 tokens, half the window of the
# small models that this runs on, and seconds of every batch on a CPU
MOST_SHOT_BYTES = 16_000


def _nothing_more(_: Prompt) -> Iterable[Prompt]:
    return ()


@dataclass(frozen=True, slots=True)
class Contender:
    """A model with the prompts that it may choose from."""

    spec: ContenderSpec
    prompts: tuple[Prompt, ...] = (OWN_MESSAGES,)  # tried first, the shortest first
    # Gives the prompts to try next from the best so far
    refine: Callable[[Prompt], Iterable[Prompt]] = _nothing_more

    @property
    def name(self) -> str:
        """The name in the report."""
        return self.spec.name

    @property
    def is_tuned(self) -> bool:
        """Whether the tuned model answers, not its base."""
        return isinstance(self.spec, Tuned)

    @property
    def borrows(self) -> bool:
        """Whether it uses the prompt that the best baseline has chosen."""
        return isinstance(self.spec, Tuned) and self.spec.prompt == "baseline"

    @property
    def has_choice(self) -> bool:
        """Whether a prompt is to be chosen on dev."""
        return len(self.prompts) > 1 or self.refine is not _nothing_more


def check_contenders(job: Job, run: str | None) -> None:
    """Refuse contenders that cannot be compared, or be made of what the job names.

    Args:
        job: With its contenders.
        run: Id of the run whose model is to be judged, where the user names it.

    Raises:
        JobError: See `check_roles`; or training rows are missing, or a run is named for nothing.
    """
    specs = job.evaluate.contenders
    check_roles(specs)
    tuned = [spec.name for spec in specs if isinstance(spec, Tuned) and spec.run is None]
    if run and not tuned:
        named = any(isinstance(spec, Tuned) for spec in specs)
        why = "is tuned without a run of its own" if named else "is tuned"
        raise JobError(
            f"run {run} is to be judged, but no contender of job {job.name!r} {why}. "
            "Add `tuned` to evaluate.contenders, or name no run."
        )
    from_train = [spec.name for spec in specs if _needs_train(spec, job.evaluate)]
    from_train += [] if run else tuned
    if job.data.train is None and from_train:
        raise JobError(
            f"job {job.name!r} names no training rows, which {', '.join(from_train)} "
            f"{'needs' if len(from_train) == 1 else 'need'}. Set data.train, or leave "
            f"{'it' if len(from_train) == 1 else 'them'} out of evaluate.contenders; a model or "
            "server does without by `prompt: zero-shot`, or by instructions of your own."
        )


def check_shots(evaluate: Evaluate, train: Iterable[Example]) -> None:
    """Refuse contenders that ask for more shots than train has distinct questions.

    Raises:
        JobError: There is such a contender.
    """
    for spec in evaluate.contenders:
        if not isinstance(spec, FewShot | Model | Server) or spec.shots == "auto":
            continue
        questions: set[object] = set()
        for row in train:
            if len(questions) == spec.shots:
                break
            if row.answer is not None:
                questions.add(row.input_key)
        if len(questions) < spec.shots:
            raise JobError(
                f"contender {spec.name!r} asks for {spec.shots} shots, but train has only "
                f"{len(questions)} distinct questions. Give a smaller number, or `auto`."
            )


def check_roles(specs: Sequence[ContenderSpec]) -> None:
    """Refuse contenders that cannot be compared.

    Raises:
        JobError: There is not exactly one candidate, no baseline, recorded answers would have to
            compete on dev, or there is no prompt to borrow.
    """
    if why := _not_comparable(specs):
        raise JobError(f"evaluate.contenders: {why}")


def _needs_train(spec: ContenderSpec, evaluate: Evaluate) -> bool:
    match spec:
        case Instructed() | Model(prompt="instructed") | Server(prompt="instructed"):
            return not (spec.instructions or evaluate.instructions)
        case _:
            return prompt_kind(spec) == "few-shot"


def _no_single_candidate(candidates: Sequence[str]) -> str | None:
    if len(candidates) > 1:
        return (
            f"{', '.join(candidates)} have the role candidate, as tuned contenders do by default, "
            "and the verdict is about exactly one. Give the others `role: reference` (shown beside "
            "it) or `role: baseline` (to be beaten): {type: tuned, run: RUN, role: reference}."
        )
    if not candidates:
        return (
            "exactly one contender must have the role candidate; found: none. A tuned contender "
            "has it by default; give a prompted one `role: candidate` to judge a prompt."
        )
    return None


def _not_comparable(specs: Sequence[ContenderSpec]) -> str | None:
    candidates = [spec.name for spec in specs if spec.role == "candidate"]
    if why := _no_single_candidate(candidates):
        return why
    baselines = [spec for spec in specs if spec.role == "baseline"]
    if not baselines:
        return (
            f"{candidates[0]!r} has nothing to be compared with. "
            "Add a contender with role baseline, such as zero-shot or few-shot."
        )
    recorded = sorted(spec.name for spec in baselines if isinstance(spec, Recorded))
    if len(baselines) > 1 and recorded:
        return (
            f"{', '.join(recorded)} {'has' if len(recorded) == 1 else 'have'} recorded answers to "
            "the test cases alone and cannot compete on dev with other baselines. Keep one "
            "baseline, and give the others `role: reference`."
        )
    borrowing = [spec for spec in specs if isinstance(spec, Tuned) and spec.prompt == "baseline"]
    for spec in borrowing:
        if spec.role == "baseline":
            return (
                f"{spec.name!r} takes the best baseline's prompt and cannot be a baseline itself. "
                "Give it `role: candidate` or `role: reference`."
            )
    unprompted = [spec.name for spec in baselines if prompt_kind(spec) is None]
    if borrowing and unprompted:
        return (
            f"{borrowing[0].name!r} takes the best baseline's prompt, and {', '.join(unprompted)} "
            "has none to give. Make it a reference, or take `prompt: own`."
        )
    return None


@dataclass(frozen=True, slots=True)
class _Material:
    """What prompts are made from: nothing of dev or test."""

    train: Sequence[Example]
    neighbours: Neighbours
    instructions: str
    seed: int

    def nearest(self, count: int) -> Prompt:
        """Return the prompt that shows each case its nearest rows."""
        label = f"{_shots(count, 'nearest ')} with instructions"
        return Prompt(label, self.instructions, Nearest(self.neighbours, count))


def build(evaluate: Evaluate, tuning: Tuning, train: Iterable[Example]) -> tuple[Contender, ...]:
    """Make the job's contenders, in its order.

    Args:
        evaluate: Contenders, and the instructions when the job has some.
        tuning: Its seed decides which rows are shown as shots.
        train: The training rows: shots and missing instructions are made from nothing else.
    """
    rows = tuple(row for row in train if row.answer is not None)
    material = _Material(
        train=rows,
        neighbours=Neighbours(rows),
        instructions=evaluate.instructions or instructions_from(rows),
        seed=0 if tuning.seed == "auto" else tuning.seed,
    )
    return tuple(_contender(spec, material) for spec in evaluate.contenders)


def _contender(spec: ContenderSpec, material: _Material) -> Contender:
    match spec:
        case Instructed() | Model(prompt="instructed") | Server(prompt="instructed"):
            text = spec.instructions or material.instructions
            return Contender(spec, (Prompt("instructions", text),))
        case FewShot():
            return _few_shot(spec, material)
        case Model(prompt="few-shot") | Server(prompt="few-shot"):
            text = spec.instructions or material.instructions
            return _few_shot(spec, replace(material, instructions=text))
        case _:
            return Contender(spec)


def _few_shot(spec: FewShot | Model | Server, material: _Material) -> Contender:
    most = spec.shots
    drawn = draw(material.train, max(LADDER) if most == "auto" else most, material.seed)
    first = [
        material.nearest(count)
        if spec.choose == "nearest"
        else Prompt(f"{_shots(count)} with instructions", material.instructions, drawn[:count])
        for count in (_counts(drawn) if most == "auto" else (most,))
    ]
    return Contender(spec, tuple(first), partial(_second_round, spec.choose, material))


def _second_round(choose: ShotChoice, material: _Material, best: Prompt) -> Iterator[Prompt]:
    count = best.shot_count
    which = "nearest " if choose == "nearest" else ""
    yield Prompt(f"{_shots(count, which)} without instructions", "", best.shots)
    if choose == "nearest":
        return
    other = draw(material.train, count, material.seed + 1)
    yield Prompt(f"{_shots(count, 'other ')} with instructions", material.instructions, other)
    if choose == "auto":
        yield material.nearest(count)


def _counts(shots: Sequence[Example]) -> tuple[int, ...]:
    sizes = [sum(len(message.text.encode()) for message in shot.messages) for shot in shots]
    allowed = [n for n in LADDER if n <= len(shots) and sum(sizes[:n]) <= MOST_SHOT_BYTES]
    return tuple(allowed) or (min(LADDER[0], len(shots)),)


def _shots(count: int, which: str = "") -> str:
    return f"{count} {which}shot{'' if count == 1 else 's'}"


EFFORT = (None, "zero-shot", "instructed", "few-shot")  # kinds of prompts by the effort in them


@dataclass(frozen=True, slots=True, order=True)
class DevScore:
    """A prompt's score on the dev rows; greater is better."""

    primary: float  # mean of the primary metric
    overall: float  # mean of all metrics, which decides between equals
    rows: int = field(default=0, compare=False)
    # The reason of each row without an answer, which scores 0
    errors: tuple[str, ...] = field(default=(), compare=False)
    # Answers that were cut off before it was clear whether they are right
    cut: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """A prompt with its score on dev."""

    prompt: Prompt
    score: DevScore


@dataclass(frozen=True, slots=True)
class Choice:
    """A contender with its prompt for the test, and all trials, in order, that chose it."""

    contender: Contender
    prompt: Prompt
    trials: tuple[Trial, ...] = ()

    @property
    def score(self) -> DevScore | None:
        """The chosen prompt's score on dev, when it was measured."""
        return next((each.score for each in self.trials if each.prompt is self.prompt), None)

    @property
    def effort(self) -> str:
        """What was tried on dev, in words."""
        score = self.score
        if score is None:
            return self.prompt.label
        right = f"{100 * score.primary:.1f} % right"
        if len(self.trials) == 1:
            return f"{self.prompt.label}; {right} on {score.rows} dev rows"
        tried = ", ".join(trial.prompt.label for trial in self.trials)
        fewest = min(trial.score.rows for trial in self.trials)
        finals = f", the best {FINALISTS} on all {score.rows}" if fewest < score.rows else ""
        return (
            f"tried {len(self.trials)} prompts on {fewest} dev rows{finals} ({tried}); "
            f"chose {self.prompt.label}, {right}"
        )


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the best score; of equals the first."""
    return max(trials, key=lambda trial: trial.score)


def finalists(trials: Sequence[Trial]) -> list[int]:
    """Return the positions of the best trials, in their order."""
    ranked = sorted(range(len(trials)), key=lambda at: trials[at].score, reverse=True)
    return sorted(ranked[:FINALISTS])


def best_baseline(choices: Sequence[Choice]) -> Choice:
    """Return the baseline with the best score on dev."""

    def strength(choice: Choice) -> tuple[DevScore, int]:
        effort = EFFORT.index(prompt_kind(choice.contender.spec))
        return choice.score or DevScore(0.0, 0.0), effort

    return max((each for each in choices if each.contender.spec.role == "baseline"), key=strength)


def borrow(contender: Contender, choices: Sequence[Choice]) -> Choice:
    """Return a contender with the prompt that the best baseline has chosen."""
    lender = best_baseline(choices)
    label = f"the prompt of {lender.contender.name}: {lender.prompt.label}"
    return Choice(contender, replace(lender.prompt, label=label))


def needs_dev(contender: Contender, contenders: Sequence[Contender]) -> bool:
    """Whether dev decides anything about this contender: its prompt, or which baseline is best."""
    rivals = sum(other.spec.role == "baseline" for other in contenders)
    return contender.has_choice or (contender.spec.role == "baseline" and rivals > 1)
