"""Do by hand what unitune does for `bank-intents`: LoRA with only torch, transformers and peft.

    python examples/by_hand.py MODEL [--steps N] [--cases N]

MODEL is a folder or a hub name; `unitune models pull smollm2-135m-instruct` prints a folder.
The script tunes on the example's training rows and counts exact answers on its test rows, before
and after. It leaves out what a tool needs: resuming, the choice of prompts, shared prefixes,
batched answers, intervals, the report.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

EXAMPLE = Path(__file__).parent / "bank-intents"
EPOCHS, BATCH, PEAK_RATE, WARMUP = 4, 8, 1e-3, 0.05

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--steps", type=int, default=10**9, help="maximum number of steps")
parser.add_argument("--cases", type=int, default=10**9, help="maximum number of test rows")
arguments = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(arguments.model)
model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
rows = {
    name: [json.loads(line)["messages"] for line in (EXAMPLE / f"{name}.jsonl").open()]
    for name in ("train", "test")
}


def render(messages: list[dict[str, str]], *, ask: bool) -> str:
    """Render a conversation as the text that the model sees."""
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)


def exact_answers(cases: list[list[dict[str, str]]]) -> float:
    """Return the share of cases whose greedy answer equals the expected one."""
    right = 0
    for *prompt, expected in cases:
        inputs = tokenizer(render(prompt, ask=True), return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        answer = tokenizer.decode(tokens[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        right += answer.strip() == expected["content"]
    return right / len(cases)


cases = rows["test"][: arguments.cases]
print(f"untuned: {exact_answers(cases):.1%} of {len(cases)} test rows exactly right")

# One row: all tokens, and labels that are -100 where there is no loss. Only the answer's tokens
# carry loss, including the stop token, or the model would never learn to stop.
encoded = []
for messages in rows["train"]:
    prompt = tokenizer(render(messages[:-1], ask=True), add_special_tokens=False).input_ids
    answer = messages[-1]["content"] + tokenizer.eos_token
    tokens = prompt + tokenizer(answer, add_special_tokens=False).input_ids
    encoded.append((tokens, [-100] * len(prompt) + tokens[len(prompt) :]))

torch.manual_seed(0)
model = get_peft_model(
    model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
)
weights = [weight for weight in model.parameters() if weight.requires_grad]
optimiser = torch.optim.AdamW(weights, lr=PEAK_RATE, weight_decay=0.0)
steps = min(arguments.steps, EPOCHS * math.ceil(len(encoded) / BATCH))

model.train()
order = random.Random(0)
queue: list[int] = []
for step in range(steps):
    if not queue:
        queue = order.sample(range(len(encoded)), len(encoded))
    batch = [encoded[queue.pop()] for _ in range(min(BATCH, len(queue)))]
    longest = max(len(tokens) for tokens, _ in batch)
    # The mask marks the padding; its id would not do, because it is that of the stop token.
    pads = [longest - len(tokens) for tokens, _ in batch]
    ids = torch.tensor(
        [t + [tokenizer.eos_token_id] * p for (t, _), p in zip(batch, pads, strict=True)]
    )  # (B, T)
    labels = torch.tensor([y + [-100] * p for (_, y), p in zip(batch, pads, strict=True)])  # (B, T)
    mask = torch.tensor([[1] * (longest - p) + [0] * p for p in pads])  # (B, T)

    warm = min(1.0, (step + 1) / (WARMUP * steps))
    rate = PEAK_RATE * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = rate
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimiser.step()
    optimiser.zero_grad()
    print(f"step {step + 1}/{steps}  loss {loss.item():.3f}")

model.eval()
print(f"tuned: {exact_answers(cases):.1%} of {len(cases)} test rows exactly right")
