"""Score a model's greedy answers to the validation rows, by the job's primary scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from peft import PeftModel

from unitune.backends.output_limit import TRAINING_ROOM, automatic_tokens, longest_expected
from unitune.data.dataset import Dataset
from unitune.errors import BackendError
from unitune.job.job import Job
from unitune.scorers.interface import Attempt
from unitune_local.data.rendering import render_prompt
from unitune_local.data.rows import scored_cases
from unitune_local.grading import Grader, Grading
from unitune_local.inference.answers import Sampling
from unitune_local.inference.generate import generate_in_training
from unitune_local.parallel.ranks import ALONE, Ranks
from unitune_local.spec import DevScorer


def dev_scorer(job: Job, validation: Dataset) -> DevScorer:
    """Return the scorer of a job's answers to the validation rows."""
    limit = job.evaluate.max_tokens
    if limit == "auto":
        limit = automatic_tokens(longest_expected(scored_cases(validation)), TRAINING_ROOM)
    grading = Grading.of(job.evaluate.deciding, job.folder.resolve())
    return DevScorer(grading=grading, max_tokens=limit)


def dev_score(
    grader: Grader, max_tokens: int, model: PeftModel, validation: Dataset, ranks: Ranks = ALONE
) -> float:
    """Return the score of answers to validation rows; raises BackendError if all fail."""
    tokenizer, scorer = grader.tokenizer, grader.scorer
    cases = scored_cases(validation)
    prompts = [render_prompt(tokenizer, case.prompt, case.tools) for case in cases]
    config = cast("Any", model.get_base_model()).config.get_text_config()
    context: int = config.max_position_embeddings
    limits = [min(max_tokens, context - len(prompt)) for prompt in prompts]

    def answer(places: Sequence[int]) -> list[str]:
        samplings = [Sampling(max_tokens=limits[place]) for place in places]
        own = [prompts[place] for place in places]
        return [each.text for each in generate_in_training(model, tokenizer, own, samplings)]

    texts = ranks.spread([len(prompt) for prompt in prompts], answer)

    def statistic() -> float:
        attempts = [Attempt(case, text) for case, text in zip(cases, texts, strict=True)]
        scores = [scorer.score(attempt) for attempt in attempts]
        if all(score.failed for score in scores):
            raise BackendError(
                f"the scorer {scorer.name!r} cannot score any answer to the validation rows: "
                f"{scores[0].reason}. Set tuning.best_by to loss, or choose another scorer."
            )
        return scorer.sums(attempts, [score.value for score in scores]).statistic()

    return ranks.first(statistic)
