"""Who competes: each contender of the job with the prompts that it may choose from.

zero-shot and tuned have one prompt, the row's own messages. instructed has one more text. few-shot
has a first round of prompts, with more and more shots, and a second made from the winner of the
first: without the instructions, with other rows, and with each case's nearest rows; at most six
prompts. A model of another backend or on a server has the prompts of the kind that it names. A
tuned model may borrow the prompt that the best baseline has chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from unitune.data.example import Example
from unitune.errors import JobError
from unitune.evaluate.prompts.prompts import OWN_MESSAGES, Nearest, Prompt, instructions_from
from unitune.evaluate.prompts.shots import Neighbours, draw
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
from unitune.job.job import Evaluate, Tuning

LADDER = (4, 8, 16)
"""Numbers of shots that `auto` tries: doubling, because each further shot gains less than the one
before; three, so that with the second round six prompts compete on dev."""
MOST_SHOT_BYTES = 16_000
"""`auto` tries no longer prompts (the fewest shots aside): some 4,000 tokens, half the window of
the small models that this runs on, and seconds of every batch on a CPU."""


def _nothing_more(_: Prompt) -> Iterable[Prompt]:
    return ()


@dataclass(frozen=True, slots=True)
class Contender:
    """A model with the prompts that it may choose from.

    Args:
        spec: As the job names it.
        prompts: Tried first, the shortest first; never empty.
        refine: Gives the prompts to try next from the best so far.
    """

    spec: ContenderSpec
    prompts: tuple[Prompt, ...] = (OWN_MESSAGES,)
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


def needs_train(spec: ContenderSpec, evaluate: Evaluate) -> bool:
    """Whether a contender's prompt is made from training rows."""
    match spec:
        case Instructed() | Model(prompt="instructed") | Server(prompt="instructed"):
            return not (spec.instructions or evaluate.instructions)
        case _:
            return prompt_kind(spec) == "few-shot"


def check_roles(specs: Sequence[ContenderSpec]) -> None:
    """Refuse contenders that cannot be compared.

    Raises:
        JobError: There is not exactly one candidate, no baseline, recorded answers would have to
            compete on dev, or there is no prompt to borrow.
    """
    if why := _not_comparable(specs):
        raise JobError(f"evaluate.contenders: {why}")


def _not_comparable(specs: Sequence[ContenderSpec]) -> str | None:
    candidates = [spec.name for spec in specs if spec.role == "candidate"]
    if len(candidates) != 1:
        return (
            f"exactly one contender must have the role candidate; found: "
            f"{', '.join(candidates) or 'none'}. The tuned contender has it by default; give a "
            "prompted one `role: candidate` to judge a prompt, and any others `role: reference`."
        )
    baselines = [spec for spec in specs if spec.role == "baseline"]
    if not baselines:
        return (
            f"{candidates[0]!r} has nothing to be compared with. "
            "Add a contender with role baseline, such as zero-shot or few-shot."
        )
    recorded = sorted(spec.name for spec in baselines if isinstance(spec, Recorded))
    if len(baselines) > 1 and recorded:
        return (
            f"{', '.join(recorded)} has recorded answers to the test cases alone, so it cannot "
            "compete on dev with other baselines. Give it, or all others, `role: reference`."
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

    Raises:
        JobError: few-shot asks for more shots than train has distinct questions.
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
    first = _first_round(spec.name, spec.shots, spec.choose, material)
    return Contender(spec, first, partial(_second_round, spec.choose, material))


def _first_round(
    name: str, count: int | Literal["auto"], choose: ShotChoice, material: _Material
) -> tuple[Prompt, ...]:
    """Return prompts with more and more shots, all with instructions."""
    drawn = draw(material.train, max(LADDER) if count == "auto" else count, material.seed)
    if count != "auto" and len(drawn) < count:
        raise JobError(
            f"contender {name!r} asks for {count} shots, but train has only "
            f"{len(drawn)} distinct questions. Give a smaller number, or `auto`."
        )
    counts = _counts(drawn) if count == "auto" else (count,)
    if choose == "nearest":
        return tuple(map(material.nearest, counts))
    return tuple(
        Prompt(f"{_shots(count)} with instructions", material.instructions, drawn[:count])
        for count in counts
    )


def _second_round(choose: ShotChoice, material: _Material, best: Prompt) -> Iterator[Prompt]:
    """Yield the best number of shots without instructions, and with other rows."""
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
    """Return the rungs of the ladder that train and the size of its rows allow."""

    def size_bytes(count: int) -> int:
        texts = (message.text for shot in shots[:count] for message in shot.messages)
        return sum(len(text.encode()) for text in texts)

    allowed = [n for n in LADDER if n <= len(shots) and size_bytes(n) <= MOST_SHOT_BYTES]
    return tuple(allowed) or (min(LADDER[0], len(shots)),)


def _shots(count: int, which: str = "") -> str:
    return f"{count} {which}shot{'' if count == 1 else 's'}"
