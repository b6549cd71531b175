"""Estimate the tokens of a comparison's requests and answers from the cases and prompt kinds."""

from __future__ import annotations

from dataclasses import dataclass

from unitune.backends.output_limit import (
    REASONING,
    THINKING_TOKENS,
    TRAINING_ROOM,
    automatic_tokens,
    is_known_to_think,
    is_served,
    room,
)
from unitune.cost.billing import USER_MESSAGE, Workload, pairs
from unitune.cost.tokens import Count
from unitune.job.contenders import (
    ContenderSpec,
    FewShot,
    Instructed,
    Model,
    Recorded,
    Server,
    Tuned,
    prompt_kind,
)
from unitune.job.dialogue import SimulatedUser
from unitune.job.job import Evaluate, Job
from unitune.job.tuning import AUTO_GROUP_SIZE
from unitune.scorers.judge import Judge

# Tokens of instructions made from training rows: at most 30 answers of at most 80 bytes
MADE_INSTRUCTIONS = Count(20, 150, 2_400)
AUTO_SHOTS = Count(4, 8, 16)  # numbers of shots that are tried if the job does not set one
# Upper bound in bytes for all shots together; a text never has more tokens than bytes
MOST_SHOT_TOKENS = 16_000
# Dev rows on which every prompt of a few-shot contender is tried. In 1,500 simulated choices among
# six prompts, the best of which were 1 to 4 points apart, the chosen one was 0.5 to 0.9 points
# below the truly best with 500 dev rows. Trying all six on all rows, at nearly twice the cost, gave
# 0.4 to 0.7.
SCREENING_ROWS = 100
FINALISTS = 3  # number of prompts that are tried on all other dev rows
# Prompts per kind that are tried on dev rows; nearest shots are tried in addition to random ones
TRIALS = {"zero-shot": Count(0, 1, 1), "instructed": Count(0, 1, 1), "few-shot": Count(3, 4, 6)}
# Answers or pairs that a judge judges twice; see `unitune.evaluate.judging.collecting`
REPEATED = 20
# Tokens of the fixed text of a request to a judge, by three tokenizers, and of a verdict's reasons
JUDGE_RULES, JUDGEMENT = Count(220, 280, 400), Count(15, 60, 200)
# Expected answer length of a local model prompted without shots, which tends to be verbose. In four
# comparisons, answers of an untuned SmolLM2 cut at 74, 136 and 271 tokens had 56 to 72, 85 to 96
# and 152 to 169 tokens.
VERBOSE_TOKENS = 100


# Tokens of a general question and of its answer. SmolLM2-135M, which adds a system prompt, counted
# 47 and 14 on average
GENERAL_PROMPT, GENERAL_ANSWER = Count(20, 45, 100), Count(1, 14, 24)


@dataclass(frozen=True, slots=True)
class ContenderTokens:
    """Tokens of all requests and answers of one contender.

    `own` and `shared` count tokens per request beyond a row's own messages, which differ by row or
    not.
    """

    prompt: Count
    answer: Count
    requests: Count
    own: Count
    shared: Count


def contender_tokens(spec: ContenderSpec, job: Job, work: Workload) -> ContenderTokens:
    """Return the tokens of a contender's requests; its model must have counted `work`."""
    if (user := job.evaluate.user) and spec.name == user.name:
        return _user_tokens(user, job, work)
    if judge := next((each for each in job.evaluate.judges if each.name == spec.name), None):
        return _judge_tokens(judge, job, work)
    on_dev, times = _answered(spec, job, work)
    cases = times * Count.of(len(work.test)) + on_dev
    requests = cases * (Count.of(1) if isinstance(spec, Recorded) else work.turns.count)
    general = Count()
    if isinstance(spec, Tuned) and is_served(spec, job.backend):
        general = Count.of(2 * job.evaluate.general_questions(here=False))  # with the untuned model
    instructions, shots = _added_tokens(spec, job.evaluate, work)
    added = instructions + shots
    own = _own_share(spec) * shots
    if own.low < shots.low:  # choose: auto uses the same shots for nearly all dev rows
        verdict = len(work.test) * (job.evaluate.repeats + len(set(job.evaluate.robustness)))
        own = Count(own.low, own.expected * verdict // max(requests.expected, 1), own.high)
    return ContenderTokens(
        requests=requests + general,
        own=own,
        shared=Count(added.low - own.low, added.expected - own.expected, added.high),
        prompt=(work.test.prompts.total * times + on_dev * work.dev.prompts.mean) * work.turns.count
        + cases * work.turns.later
        + requests * added
        + general * GENERAL_PROMPT,
        answer=requests * _answer(spec, job, work) + general * GENERAL_ANSWER,
    )


def _answered(spec: ContenderSpec, job: Job, work: Workload) -> tuple[Count, Count]:
    """Return how many dev rows a contender answers, and how often each test row."""
    kind, evaluate = prompt_kind(spec), job.evaluate
    chooses = kind and evaluate.scores_dev and len(evaluate.contenders) > 1
    tries = TRIALS[kind] if kind and chooses else Count()
    on_dev = _dev_requests(tries, len(work.validation))
    if isinstance(spec, Tuned) and spec.run is None:
        on_dev += Count.of(len(job.variants()) * len(work.validation))  # runs of a sweep
    changes = () if isinstance(spec, Recorded) else set(evaluate.robustness)
    most = evaluate.repeats + len(changes)
    least = most - ("option_order" in changes)  # perhaps no question has a list of options
    times = Count(least, most, most)
    # The other finalists also answer the test rows
    if kind == "few-shot" and spec.role == "baseline":
        times = times * Count(2, FINALISTS, FINALISTS)
    return on_dev, times


def _user_tokens(user: SimulatedUser, job: Job, work: Workload) -> ContenderTokens:
    """Return the tokens of a simulated user, which reads the whole conversation each time."""
    requests, prompt, turns = Count(), Count(), work.turns
    message = Count(1, min(USER_MESSAGE, user.max_tokens), user.max_tokens)
    for spec in job.evaluate.contenders:
        if isinstance(spec, Recorded):
            continue
        on_dev, times = _answered(spec, job, work)
        dialogues = times * Count.of(len(work.test)) + on_dev
        answer = _answer(spec, job, work)
        requests += dialogues * turns.user
        shown = turns.user * (turns.asked + answer) + pairs(turns.user) * (answer + message)
        prompt += dialogues * shown
    return ContenderTokens(
        requests=requests,
        own=turns.asked,
        shared=Count(),
        prompt=prompt,
        answer=requests * message,
    )


def _judge_tokens(judge: Judge, job: Job, work: Workload) -> ContenderTokens:
    """Return the tokens of a judge, which reads each answer, or each pair in both orders."""
    judged, n = Count(), len(work.test)
    shown = Count()  # tokens of all answers that are shown
    for spec in job.evaluate.contenders:
        if judge.compare and spec.role == "candidate":
            continue
        asked = n * (2 if judge.compare else job.evaluate.repeats)
        finals = Count.of(1)
        if prompt_kind(spec) == "few-shot" and spec.role == "baseline" and job.evaluate.scores_dev:
            finals = Count(1, FINALISTS, FINALISTS)
        times = finals * Count.of(asked)
        judged += times
        whole = work.turns.count * (_answer(spec, job, work) + work.turns.added)
        shown += times * Count.of(2 if judge.compare else 1) * whole
    judged += Count.of(min(REPEATED, n))
    return _judgements(judge, judged, work.test.prompts.mean, shown)


def reward_tokens(judge: Judge, job: Job, work: Workload, passes: Count) -> ContenderTokens:
    """Return the tokens of a judge that rewards sampled answers; equal answers are judged once."""
    group, limit = job.tuning.reward.group_size, job.tuning.reward.max_tokens
    size = AUTO_GROUP_SIZE if group == "auto" else group
    train, held_out = Count.of(len(work.train)), Count.of(len(work.validation))
    judged = passes * (train * Count(1, size, size) + held_out) + held_out
    longest = work.train.answers.longest.high
    most = automatic_tokens(longest, TRAINING_ROOM) if limit == "auto" else limit
    answer = Count(1, min(work.train.answers.mean.expected or most, most), most)
    return _judgements(judge, judged, work.train.prompts.mean, judged * answer)


def _judgements(judge: Judge, requests: Count, prompt: Count, shown: Count) -> ContenderTokens:
    words = judge.compare or " ".join(map(str, judge.rubric))
    rules = JUDGE_RULES + Count.of(len(words.encode()) // 3)
    verdicts = Count.of(max(1, len(judge.rubric)))
    usual = Count(JUDGEMENT.low, JUDGEMENT.expected, judge.max_tokens) * verdicts
    answer = Count(usual.low, min(usual.expected, judge.max_tokens), judge.max_tokens)
    return ContenderTokens(
        requests=requests,
        own=Count(),
        shared=rules,
        prompt=requests * (rules + prompt) + shown,
        answer=requests * answer,
    )


def general_tokens(questions: int) -> ContenderTokens:
    """Return the tokens of general questions to a tuned model and to its untuned base."""
    requests = Count.of(2 * questions)
    prompt, answer = requests * GENERAL_PROMPT, requests * GENERAL_ANSWER
    return ContenderTokens(prompt, answer, requests, own=Count(), shared=Count())


def _dev_requests(tries: Count, rows: int) -> Count:
    """Return the requests on dev rows: a few prompts on all rows, the others on some."""
    some = min(rows, SCREENING_ROWS)
    return Count(
        *(
            prompts * some + min(prompts, FINALISTS) * (rows - some)
            for prompts in (tries.low, tries.expected, tries.high)
        )
    )


def _added_tokens(spec: ContenderSpec, evaluate: Evaluate, work: Workload) -> tuple[Count, Count]:
    """Return the tokens that instructions and shots add to a row's own."""
    match spec:
        case Tuned(prompt="baseline"):
            shots = Count(high=_shots(AUTO_SHOTS, work).high)
            return Count(expected=MADE_INSTRUCTIONS.expected), shots
        case Instructed() | Model(prompt="instructed") | Server(prompt="instructed"):
            return _instructions(spec.instructions or evaluate.instructions), Count()
        case FewShot() | Model(prompt="few-shot") | Server(prompt="few-shot"):
            count = AUTO_SHOTS if spec.shots == "auto" else Count.of(spec.shots)
            return _instructions(evaluate.instructions), _shots(count, work)
        case _:
            return Count(), Count()


def _own_share(spec: ContenderSpec) -> Count:
    """Return 1 if each row gets its own shots, 0 if not, and a range if both are tried."""
    match spec:
        case FewShot(choose=choose) | Model(prompt="few-shot", choose=choose):
            return {"random": Count(), "nearest": Count.of(1)}.get(choose, Count(0, 1, 1))
        case Tuned(prompt="baseline"):
            return Count(0, 1, 1)
        case _:
            return Count()


def _instructions(text: str | None) -> Count:
    """Return the tokens of instructions: at most one per byte, rarely fewer than one per six."""
    if text is None:
        return MADE_INSTRUCTIONS
    size = len(text.encode())
    return Count(size // 6, size // 4, size)


def _shots(count: Count, work: Workload) -> Count:
    row, longest = work.train.totals.mean, work.train.totals.longest.high
    most = min(count.high * longest, max(MOST_SHOT_TOKENS, count.high * row.high))
    expected = count.expected * row.expected
    return Count(min(count.low * row.low, expected), expected, max(expected, most))


def _answer(spec: ContenderSpec, job: Job, work: Workload) -> Count:
    """Return the tokens of one answer: as long as in the cases, up to the limit.

    Models known to reason have more, including hidden tokens (`REASONING`).
    """
    mean = work.test.answers.mean if work.test.answers.total.high else work.train.answers.mean
    longest = max(work.train.answers.longest.high, work.test.answers.longest.high)
    limit, usual = job.evaluate.max_tokens, mean.expected
    if prompt_kind(spec) in ("zero-shot", "instructed") and not is_served(spec, job.backend):
        usual = max(usual, VERBOSE_TOKENS)
    most = automatic_tokens(longest, room(spec, job.backend))
    if is_known_to_think(spec, job):
        usual, most = round(usual * REASONING[1]), most + THINKING_TOKENS
    if limit != "auto":
        usual, most = min(usual, limit), limit
    return Count(min(mean.low, 1), usual, max(mean.high, usual, most))
