"""Who competes: each contender of the job with the prompts that it may choose from.

zero-shot and tuned have one prompt, the row's own messages. instructed has one more text. few-shot
has a first round of prompts, with more and more shots, and a second made from the winner of the
first, without the instructions and with other rows: at most five prompts, each asked all dev rows.

Not here: asking (`unitune.evaluate.engine`) and choosing (`unitune.evaluate.dev`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from unitune.data.example import Example
from unitune.errors import JobError
from unitune.evaluate.prompts import OWN_MESSAGES, Prompt, instructions_from
from unitune.evaluate.shots import draw, size_bytes
from unitune.job import (
    ContenderSpec,
    Evaluate,
    FewShot,
    Instructed,
    Recorded,
    Tuned,
    Tuning,
    ZeroShot,
)

LADDER = (4, 8, 16)
"""Numbers of shots that `auto` tries.

Doubling, because each further shot gains less than the one before; three rungs, so that with the
second round the choice costs five times the dev rows.
"""

MOST_SHOT_BYTES = 16_000
"""`auto` tries no longer prompts (the fewest shots aside): some 4,000 tokens, half the window of
the small models that this runs on, and seconds of every batch on a CPU.
"""


def _nothing_more(_: Prompt) -> tuple[Prompt, ...]:
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
    refine: Callable[[Prompt], tuple[Prompt, ...]] = _nothing_more

    @property
    def name(self) -> str:
        """The name in the report."""
        return self.spec.name

    @property
    def is_tuned(self) -> bool:
        """Whether the tuned model is asked, not its base."""
        return isinstance(self.spec, Tuned)

    @property
    def has_choice(self) -> bool:
        """Whether something is to be chosen on dev."""
        return len(self.prompts) > 1 or self.refine is not _nothing_more


def check_roles(specs: Sequence[ContenderSpec]) -> None:
    """Refuse contenders that cannot be compared.

    Raises:
        JobError: There is not exactly one candidate, no baseline, or recorded answers would have
            to compete on dev.
    """
    candidates = [spec.name for spec in specs if spec.role == "candidate"]
    if len(candidates) != 1:
        found = ", ".join(candidates) or "none"
        raise JobError(
            f"evaluate.contenders: exactly one contender must have the role candidate; found: "
            f"{found}. The tuned contender has it by default; give a prompted one "
            "`role: candidate` to judge a prompt, and any others `role: reference`."
        )
    baselines = [spec.name for spec in specs if spec.role == "baseline"]
    recorded = [spec.name for spec in specs if isinstance(spec, Recorded)]
    if len(baselines) > 1 and (kept := set(baselines) & set(recorded)):
        raise JobError(
            f"evaluate.contenders: {', '.join(sorted(kept))} has recorded answers to the test "
            "cases alone, so it cannot compete on dev with other baselines. Give it, or all "
            "others, `role: reference`."
        )
    if not baselines:
        raise JobError(
            f"evaluate.contenders: {candidates[0]!r} has nothing to be compared with. "
            "Add a contender with role baseline, such as zero-shot or few-shot."
        )


def build(evaluate: Evaluate, tuning: Tuning, train: Iterable[Example]) -> tuple[Contender, ...]:
    """Make the job's contenders, in its order.

    Args:
        evaluate: Contenders, and the instructions when the job has some.
        tuning: Its seed decides which rows are shown as shots.
        train: The training rows: shots and missing instructions are made from nothing else.

    Raises:
        JobError: few-shot asks for more shots than train has distinct questions.
    """
    rows = tuple(train)
    seed = 0 if tuning.seed == "auto" else tuning.seed
    instructions = evaluate.instructions or instructions_from(rows)
    return tuple(_contender(spec, rows, instructions, seed) for spec in evaluate.contenders)


def _contender(
    spec: ContenderSpec, train: Sequence[Example], instructions: str, seed: int
) -> Contender:
    match spec:
        case ZeroShot() | Tuned() | Recorded():
            return Contender(spec)
        case Instructed():
            return Contender(spec, (Prompt("instructions", spec.instructions or instructions),))
        case FewShot():
            return Contender(
                spec,
                _first_round(spec, train, instructions, seed),
                partial(_second_round, train, instructions, seed),
            )


def _first_round(
    spec: FewShot, train: Sequence[Example], instructions: str, seed: int
) -> tuple[Prompt, ...]:
    """Return prompts with more and more shots, all with instructions."""
    wanted = max(LADDER) if spec.shots == "auto" else spec.shots
    shots = draw(train, wanted, seed)
    if spec.shots != "auto" and len(shots) < spec.shots:
        raise JobError(
            f"contender {spec.name!r} asks for {spec.shots} shots, but train has only "
            f"{len(shots)} distinct questions. Give a smaller number, or `auto`."
        )
    counts = _counts(shots) if spec.shots == "auto" else (spec.shots,)
    return tuple(
        Prompt(f"{_shots(count)} with instructions", instructions, shots[:count])
        for count in counts
    )


def _second_round(
    train: Sequence[Example], instructions: str, seed: int, best: Prompt
) -> tuple[Prompt, ...]:
    """Return the best number of shots without instructions, and with other rows."""
    count = len(best.shots)
    return (
        Prompt(f"{_shots(count)} without instructions", "", best.shots),
        Prompt(
            f"{_shots(count, 'other ')} with instructions",
            instructions,
            draw(train, count, seed + 1),
        ),
    )


def _counts(shots: Sequence[Example]) -> tuple[int, ...]:
    """Return the rungs of the ladder that train and the size of its rows allow."""
    fewest = min(LADDER[0], len(shots))
    allowed = [
        count
        for count in LADDER
        if count <= len(shots) and size_bytes(shots[:count]) <= MOST_SHOT_BYTES
    ]
    return tuple(allowed) or (fewest,)


def _shots(count: int, which: str = "") -> str:
    return f"{count} {which}shot{'' if count == 1 else 's'}"
