"""The losses of rewards, by TRL's formulas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from support.rewarded_rows import gradients_of, loss_of, model_of, moved, prompts_of, use_plain
from torch import Tensor

from unitune_local.objectives.rollout import Sample


@pytest.mark.parametrize(
    ("kl", "loss", "scale", "updates"),
    [
        (0.0, "dapo", "none", 1),
        (0.3, "dapo", "none", 1),
        (0.0, "grpo", "group", 1),
        (0.3, "grpo", "group", 2),
        (0.0, "dr_grpo", "batch", 2),
    ],
)
def test_loss_and_gradient_are_those_of_all_answers_computed_alone(
    tiny_model: Path, kl: float, loss: str, scale: str, updates: int
) -> None:
    """Equal answers computed once, answers without advantage left out, prompts shared.

    The loss is that of the last of so many updates, between which the model has moved. The formulas
    are those of TRL 1.16, GRPOTrainer: `_compute_loss` by `loss_type` (`per_token_loss1`,
    `per_token_loss2`, `normalizer`) and `_generate_and_score_completions` by `scale_rewards`, with
    `use_bias_correction_kl`.
    """
    settings = {"kl": kl, "max_tokens": 2, "group_size": 8, "temperature": 0.4, "loss": loss}
    settings |= {"scale": scale, "updates": updates, "clip": 0.02, "clip_high": 0.04}
    beginning = model_of(tiny_model, trained=True)
    objective = moved(loss_of(tiny_model, trained=True, **settings))
    prompts = prompts_of(tiny_model)
    groups = objective.rollouts.groups(prompts, 1)
    use_plain(objective.model)
    samples = [
        (prompt.ids, each) for prompt, group in zip(prompts, groups, strict=True) for each in group
    ]
    with torch.no_grad():
        old = [chances_of(objective.model, *sample)[0] for sample in samples]
        first = [chances_of(beginning, *sample)[0] for sample in samples]
    model = (moved(objective) if updates == 2 else objective).model
    rewards = torch.tensor([[each.reward for each in group] for group in groups])
    gains = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "group":
        gains = gains / (rewards.std(dim=1, keepdim=True) + 1e-4)
    elif scale == "batch":
        gains = gains / (rewards.std() + 1e-4)
    tokens = sum(len(sample.ids) for _, sample in samples)
    expected, divergence, entropy, clipped = 0.0, 0.0, 0.0, 0
    for (ids, sample), gain, was, base in zip(samples, gains.flatten(), old, first, strict=True):
        own, entropies = chances_of(model, ids, sample)
        ratio, gap = (own - was if updates == 2 else own - own.detach()).exp(), base - own
        estimate = ratio * (gap.exp() - gap - 1)
        each = -torch.min(ratio * gain, ratio.clamp(0.98, 1.04) * gain) + kl * estimate
        parts = {
            "grpo": each.mean() / len(samples),
            "dapo": each.sum() / tokens,
            "dr_grpo": each.sum() / (2 * len(samples)),
        }
        torch.autograd.backward(parts[loss])
        expected += parts[loss].item()
        divergence, entropy = divergence + estimate.sum().item(), entropy + entropies.sum().item()
        clipped += int(((ratio < 0.98) & (gain < 0) | (ratio > 1.04) & (gain > 0)).sum())
    gradients = gradients_of(model)

    objective = moved(loss_of(tiny_model, trained=True, **settings))
    prepared = objective.prepare(prompts, 1)
    (part,) = objective.losses([prepared.rows])
    if updates == 2:
        (part,) = moved(objective).losses([prepared.rows])
    torch.autograd.backward(part.loss / prepared.weight)

    assert expected == pytest.approx(part.loss.item() / prepared.weight, abs=1e-5)
    assert (len(prepared.rows) == 64) == (bool(kl) or updates == 2)
    figures = {name: value / prepared.weight for name, value in part.figures.items()}
    if kl:
        assert divergence / tokens == pytest.approx(figures["kl"], rel=1e-3)
        assert entropy / tokens == pytest.approx(figures["entropy"], rel=1e-4)
    assert ("clipped" in figures) == (updates == 2)
    if kl and updates == 2:
        assert 0 < clipped < tokens
        assert clipped / tokens == pytest.approx(figures["clipped"])
    for name, gradient in gradients_of(objective.model).items():
        torch.testing.assert_close(gradient, gradients[name], rtol=2e-3, atol=2e-5)


def chances_of(model: PeftModel, prompt: tuple[int, ...], sample: Sample) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each token of an answer, and the entropy there."""
    logits = model(input_ids=torch.tensor([[*prompt, *sample.ids]])).logits[0, len(prompt) - 1 : -1]
    chances = (logits / 0.4).log_softmax(-1)
    return chances.gather(1, torch.tensor(sample.ids)[:, None])[:, 0], torch.special.entr(
        chances.exp()
    ).sum(-1)
