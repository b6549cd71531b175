"""Compare reward training with TRL's GRPOTrainer on the same answers: losses and gradients.

    python benchmarks/reward.py PROMPTS [--model NAME] [--prompts-a-step 4] [--steps 3] [--kl 0.1]
                                        [--dtype float32] [--threads N]

PROMPTS is a file of rows for ``method: rft``. unitune samples groups of answers, scores them by
their number of letters, and trains a step. TRL gets the same answers and rewards (`rollout_func`),
and computes advantages, losses and gradients itself, in the way of Dr. GRPO (``loss_type="dapo"``,
``scale_rewards="none"``). Weights, optimiser and learning rate are the same. TRL's loss differs
from a sum of log-probabilities by a constant, as its ratios are 1. Therefore gradient norms, the
divergence and the final adapters are compared.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in the worker

import torch
from shared_prefix import LEARNING_RATE, settings_for, trl_settings

from unitune.data.load import load
from unitune.scorers.interface import Attempt, Scorer, Setting
from unitune_local.data.batches import TrainingRow, micro_batches
from unitune_local.data.rows import render_prompts
from unitune_local.grading import Grader
from unitune_local.models import store
from unitune_local.models.model import add_adapter, load_model, load_tokenizer
from unitune_local.objectives.loss import choose_form
from unitune_local.objectives.reward import RewardLoss
from unitune_local.objectives.rollout import Rollouts, Sample
from unitune_local.settings import RewardSettings, Settings

GROUP_SIZE, MAX_TOKENS = 4, 12


class Letters(Scorer):
    """Scorer by the number of letters, up to forty: nearly all answers differ."""

    name: str = "letters"

    def judge(self, attempt: Attempt) -> float:
        """Return the share of letters."""
        return min(1.0, sum(letter.isalpha() for letter in attempt.text) / 40)


def fresh_model(path: Path, settings: Settings) -> Any:
    """Return the base with new adapters, the same each time; TRL's reference is this start."""
    torch.manual_seed(0)
    model = add_adapter(load_model(path, settings.torch_dtype), settings)
    torch.set_num_threads(settings.threads)
    return model.train()


def measure(
    model: Any, tokenizer: Any, steps: list[list[TrainingRow]], settings: Settings, kl: float
) -> tuple[list[dict[str, float]], list[list[list[Sample]]], float]:
    """Train with unitune; return the figures of each step, its answers, and CPU-seconds."""
    form = choose_form(model, steps[0], settings)
    grader = Grader(tokenizer, Letters().ready(Setting(), ""))
    chosen = RewardSettings(group_size=GROUP_SIZE, temperature=1.0, max_tokens=MAX_TOKENS, kl=kl)
    rollouts = Rollouts(model, form, grader, chosen, 0, settings.sequence_length)
    objective = RewardLoss(rollouts)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    figures, kept, spent = list[dict[str, float]](), list[list[list[Sample]]](), 0.0
    for step, rows in enumerate(steps, 1):
        kept.append(rollouts.groups(rows, step))  # samples them as `prepare` does
        prepared = objective.prepare(rows, step)
        start, kl_sum = time.process_time(), 0.0
        for part in objective.losses(
            micro_batches(prepared.rows, settings.micro_batch_tokens, share=form.share)
        ):
            torch.autograd.backward(part.loss / prepared.weight)
            kl_sum += part.figures.get("kl", 0.0)
        norm = torch.nn.utils.clip_grad_norm_(weights, float("inf")).item()
        optimizer.step()
        optimizer.zero_grad()
        spent += time.process_time() - start
        figures.append(
            {
                "grad_norm": norm,
                "kl": kl_sum / prepared.weight,
                "reward": prepared.figures["reward"],
            }
        )
    return figures, kept, spent


def measure_trl(
    model: Any,
    tokenizer: Any,
    steps: list[list[TrainingRow]],
    groups: list[list[list[Sample]]],
    kl: float,
) -> list[dict[str, float]]:
    """Train on the same answers and rewards with TRL; return the figures that it logs."""
    import pyarrow as pa  # noqa: PLC0415 - optional
    from datasets import Dataset  # noqa: PLC0415 - optional
    from trl import GRPOConfig, GRPOTrainer  # noqa: PLC0415 - optional

    prompts = {
        f"{step}/{at}": row for step, rows in enumerate(steps) for at, row in enumerate(rows)
    }

    def rollout(names: list[str], trainer: Any) -> dict[str, Any]:
        del trainer
        places, samples = dict[str, int](), list[Sample]()
        for name in names:
            step, at = map(int, name.split("/"))
            samples.append(groups[step][at][places.setdefault(name, 0)])
            places[name] += 1
        return {
            "prompt_ids": [list(prompts[name].ids) for name in names],
            "completion_ids": [list(sample.ids) for sample in samples],
            "logprobs": None,
            "reward": [sample.reward for sample in samples],
        }

    def earned(reward: list[float], **_: Any) -> list[float]:
        return reward

    with tempfile.TemporaryDirectory() as folder:
        inherited = trl_settings(folder, [[*rows] * GROUP_SIZE for rows in steps])
        inherited.pop("max_length")
        config = GRPOConfig(
            **inherited,
            num_generations=GROUP_SIZE,
            max_completion_length=MAX_TOKENS,
            beta=kl,
            loss_type="dapo",
            scale_rewards="none",
            shuffle_dataset=False,
            temperature=1.0,
        )
        run = GRPOTrainer(
            model=model,
            args=config,
            reward_funcs=earned,
            train_dataset=Dataset(
                pa.Table.from_pylist([{"prompt": name} for name in prompts]), fingerprint="prompts"
            ),
            processing_class=tokenizer,
            rollout_func=rollout,
        )
        run.train()
    logged = [entry for entry in run.state.log_history if "grad_norm" in entry]
    return [
        {"grad_norm": each["grad_norm"], "kl": each.get("kl", 0.0), "reward": each["reward"]}
        for each in logged
    ]


def adapters(model: Any) -> torch.Tensor:
    """Return all adapter weights as one tensor."""
    return torch.cat([each.detach().flatten() for each in model.parameters() if each.requires_grad])


def main() -> None:
    """Train with both, and print their differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts-a-step", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--kl", type=float, default=0.1)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()

    path = store.resolve(given.model)
    settings = settings_for(path, given.model, given.dtype, given.threads)
    tokenizer = load_tokenizer(path)
    rows = render_prompts(tokenizer, load(given.prompts, use="rft"), settings.sequence_length).rows
    size = given.prompts_a_step
    steps = [list(rows[at * size : (at + 1) * size]) for at in range(given.steps)]

    model = fresh_model(path, settings)
    begun = adapters(model)
    ours, groups, spent = measure(model, tokenizer, steps, settings, given.kl)
    trained = adapters(model)
    model = fresh_model(path, settings)
    for layer in model.modules():
        vars(layer).pop("forward", None)  # peft's own arithmetic
    theirs = measure_trl(model, tokenizer, steps, groups, given.kl)
    for name, figures in (("unitune", ours), ("trl", theirs)):
        for step, each in enumerate(figures, 1):
            words = "  ".join(f"{figure} {value:.6f}" for figure, value in each.items())
            print(f"{name:8} step {step}  {words}")
    moved = (trained - begun).norm()
    apart = (trained - adapters(model)).norm() / moved
    print(f"adapters {apart.item():.1e} of their way apart; learning took {spent:.1f} CPU-s")


if __name__ == "__main__":
    main()
