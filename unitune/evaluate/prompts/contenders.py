"""Build each contender of a job with its prompts, and choose among them on dev rows.

few-shot tries prompts with more and more shots, then variants of the best one, at most six. With
several prompts and many dev rows, the first `SCREENING_ROWS` pick `FINALISTS`, which also answer
the others. Ties are broken by the mean of all scorers, then by the order of trial and, for
baselines, in favour of more effort, so that a tie never gives the candidate an easier opponent.
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

# Numbers of shots that `auto` tries: doubled each time, because each further shot gains less
LADDER = (4, 8, 16)
# Size limit of longer prompts with `auto`: about 4,000 tokens, half the window of small local
# models and seconds per batch on a CPU
MOST_SHOT_BYTES = 16_000


def _nothing_more(_: Prompt) -> Iterable[Prompt]:
    return ()


@dataclass(frozen=True, slots=True)
class Contender:
    """Model with the prompts that it may choose from."""

    spec: ContenderSpec
    prompts: tuple[Prompt, ...] = (OWN_MESSAGES,)  # tried first, shortest first
    # Returns the prompts to try next, given the best so far
    refine: Callable[[Prompt], Iterable[Prompt]] = _nothing_more

    @property
    def name(self) -> str:
        """Name in the report."""
        return self.spec.name

    @property
    def is_tuned(self) -> bool:
        """True if the tuned model answers."""
        return isinstance(self.spec, Tuned)

    @property
    def borrows(self) -> bool:
        """True if it uses the prompt chosen by the best baseline."""
        return isinstance(self.spec, Tuned) and self.spec.prompt == "baseline"

    @property
    def has_choice(self) -> bool:
        """True if its prompt is chosen on dev rows."""
        return len(self.prompts) > 1 or self.refine is not _nothing_more


def check_contenders(job: Job, run: str | None) -> None:
    """Raise JobError if contenders cannot be compared or built from the job or run."""
    specs = job.evaluate.contenders
    check_roles(specs)
    tuned = [spec.name for spec in specs if isinstance(spec, Tuned) and spec.run is None]
    if run and not tuned:
        named = any(isinstance(spec, Tuned) for spec in specs)
        why = "is tuned without a run of its own" if named else "is tuned"
        raise JobError(
            f"run {run} is given, but no contender of job {job.name!r} {why}. Add `tuned` to "
            "evaluate.contenders, or give no run."
        )
    from_train = [spec.name for spec in specs if _needs_train(spec, job.evaluate)]
    from_train += [] if run else tuned
    if job.data.train is None and from_train:
        raise JobError(
            f"job {job.name!r} has no training rows, which {', '.join(from_train)} "
            f"{'needs' if len(from_train) == 1 else 'need'}. Set data.train, or remove "
            f"{'it' if len(from_train) == 1 else 'them'} from evaluate.contenders. A model or "
            "server needs none with `prompt: zero-shot` or with its own instructions."
        )


def check_shots(evaluate: Evaluate, train: Iterable[Example]) -> None:
    """Raise JobError if a contender has more shots than the rows have distinct questions."""
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
                f"contender {spec.name!r} needs {spec.shots} shots, but the training rows have "
                f"only {len(questions)} distinct questions. Use a smaller number, or `auto`."
            )


def check_roles(specs: Sequence[ContenderSpec]) -> None:
    """Raise JobError if the contenders' roles do not allow a comparison."""
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
            f"{', '.join(candidates)} have the role candidate (the default of tuned contenders), "
            "but a verdict is about exactly one. Give the others `role: reference` (shown next to "
            "it) or `role: baseline` (to be beaten): {type: tuned, run: RUN, role: reference}."
        )
    if not candidates:
        return (
            "exactly one contender must have the role candidate, but none has. It is the default "
            "of tuned contenders; to evaluate a prompt, give its contender `role: candidate`."
        )
    return None


def _not_comparable(specs: Sequence[ContenderSpec]) -> str | None:
    candidates = [spec.name for spec in specs if spec.role == "candidate"]
    if why := _no_single_candidate(candidates):
        return why
    baselines = [spec for spec in specs if spec.role == "baseline"]
    if not baselines:
        return (
            f"{candidates[0]!r} has no baseline. Add a contender with role baseline, such as "
            "zero-shot or few-shot."
        )
    recorded = sorted(spec.name for spec in baselines if isinstance(spec, Recorded))
    if len(baselines) > 1 and recorded:
        return (
            f"{', '.join(recorded)} {'has' if len(recorded) == 1 else 'have'} recorded answers to "
            "the test cases only and cannot compete on dev rows with other baselines. Keep one "
            "baseline, and give the others `role: reference`."
        )
    borrowing = [spec for spec in specs if isinstance(spec, Tuned) and spec.prompt == "baseline"]
    for spec in borrowing:
        if spec.role == "baseline":
            return (
                f"{spec.name!r} uses the best baseline's prompt and cannot be a baseline itself. "
                "Give it `role: candidate` or `role: reference`."
            )
    unprompted = [spec.name for spec in baselines if prompt_kind(spec) is None]
    if borrowing and unprompted:
        return (
            f"{borrowing[0].name!r} uses the best baseline's prompt, but {', '.join(unprompted)} "
            "does not have one. Make it a reference, or use `prompt: own`."
        )
    return None


@dataclass(frozen=True, slots=True)
class _Material:
    train: Sequence[Example]
    neighbours: Neighbours
    instructions: str
    seed: int

    def nearest(self, count: int) -> Prompt:
        """Return the prompt that shows each case its nearest rows."""
        label = f"{_shots(count, 'nearest ')} with instructions"
        return Prompt(label, self.instructions, Nearest(self.neighbours, count))


def build(evaluate: Evaluate, tuning: Tuning, train: Iterable[Example]) -> tuple[Contender, ...]:
    """Build the job's contenders in its order, with shots and instructions from training rows."""
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


EFFORT = (None, "zero-shot", "instructed", "few-shot")  # kinds of prompts, by effort


@dataclass(frozen=True, slots=True, order=True)
class DevScore:
    """Score of a prompt on the dev rows; greater is better."""

    primary: float  # mean of the primary metric
    overall: float  # mean of all metrics, which breaks ties
    rows: int = field(default=0, compare=False)
    # Reason of each row without an answer, which scores 0
    errors: tuple[str, ...] = field(default=(), compare=False)
    # Answers that were cut off before they could be scored
    cut: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """Prompt with its score on dev rows."""

    prompt: Prompt
    score: DevScore


@dataclass(frozen=True, slots=True)
class Choice:
    """Contender with its prompt for the test, and all trials in order."""

    contender: Contender
    prompt: Prompt
    trials: tuple[Trial, ...] = ()

    @property
    def score(self) -> DevScore | None:
        """Score of the chosen prompt on dev rows, if measured."""
        return next((each.score for each in self.trials if each.prompt is self.prompt), None)

    @property
    def effort(self) -> str:
        """Summary of what was tried on dev rows."""
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
    """Return the trial with the best score; the first one of a tie."""
    return max(trials, key=lambda trial: trial.score)


def finalists(trials: Sequence[Trial]) -> list[int]:
    """Return the positions of the best trials, in their order."""
    ranked = sorted(range(len(trials)), key=lambda at: trials[at].score, reverse=True)
    return sorted(ranked[:FINALISTS])


def best_baseline(choices: Sequence[Choice]) -> Choice:
    """Return the baseline with the best score on dev rows."""

    def strength(choice: Choice) -> tuple[DevScore, int]:
        effort = EFFORT.index(prompt_kind(choice.contender.spec))
        return choice.score or DevScore(0.0, 0.0), effort

    return max((each for each in choices if each.contender.spec.role == "baseline"), key=strength)


def borrow(contender: Contender, choices: Sequence[Choice]) -> Choice:
    """Return a contender with the prompt chosen by the best baseline."""
    lender = best_baseline(choices)
    label = f"the prompt of {lender.contender.name}: {lender.prompt.label}"
    return Choice(contender, replace(lender.prompt, label=label))


def needs_dev(contender: Contender, contenders: Sequence[Contender]) -> bool:
    """Return whether dev rows choose this contender's prompt or the best baseline."""
    rivals = sum(other.spec.role == "baseline" for other in contenders)
    return contender.has_choice or (contender.spec.role == "baseline" and rivals > 1)
