"""The server that plays Together takes what Together takes, and refuses what Together refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("together", reason="needs the extra `together`")

from together import BadRequestError, Together, UnprocessableEntityError
from vendors.together.vendor import KEY, TogetherVendor

from unitune.testing.loopback import serve

MODEL = "Qwen/Qwen3-8B"
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
PAIR = {
    "input": {"messages": CHAT["messages"][:1]},
    "preferred_output": CHAT["messages"][1:],
    "non_preferred_output": [{"role": "assistant", "content": "No"}],
}
LORA = {"type": "Lora", "lora_r": 8, "lora_alpha": 16}


@pytest.fixture
def client() -> Iterator[Together]:
    with (
        serve(TogetherVendor()) as server,
        Together(api_key=KEY, base_url=server.url, max_retries=0) as client,
    ):
        yield client


def uploaded(client: Together, folder: Path, row: Any) -> str:
    """Upload a file of ten rows, as the quickstart does, and look until it is valid."""
    path = folder / "rows.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * 10, encoding="utf-8")
    file = client.files.upload(file=path, purpose="fine-tune", check=False)
    for _ in range(3):
        client.files.retrieve(file.id)
    return file.id


def create(client: Together, **body: Any) -> Any:
    return client.post("/v1/fine-tunes", body={"model": MODEL, **body}, cast_to=object)


def test_the_quickstart_of_its_sdk_tunes(client: Together, tmp_path: Path) -> None:
    """It sends an empty validation file where none is named."""
    file = uploaded(client, tmp_path, CHAT)
    job = client.fine_tuning.create(training_file=file, model=MODEL, lora=True, n_epochs=2)
    for _ in range(6):
        told = client.fine_tuning.retrieve(job.id)
    assert told.status == "completed"
    tokens = 2 * (len(json.dumps(CHAT)) + 1) * 10 // 4
    assert told.token_count == pytest.approx(tokens, abs=2)
    assert told.total_price == pytest.approx(tokens * 480, rel=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_epochs": 0},
        {"n_epochs": -3},
        {"n_epochs": 21},
        {"batch_size": 1},
        {"batch_size": 4096},
        {"training_type": {**LORA, "lora_r": 4096}},
        {"training_type": {**LORA, "lora_dropout": 1.0}},
        {"training_type": {**LORA, "lora_trainable_modules": "nonsense"}},
        {"training_type": {"type": "QLora", "lora_r": 8, "lora_alpha": 16}},
        {"max_seq_length": 10},
        {"warmup_ratio": 5},
        {"weight_decay": -1},
        {"max_grad_norm": -1},
        {"learning_rate": 1.0},
        {"lr_scheduler": {"lr_scheduler_type": "step"}},
        {"lr_scheduler": {"lr_scheduler_type": "cosine", "lr_scheduler_args": {"num_cycles": 0}}},
        {"training_method": {"method": "dpo", "dpo_beta": 0.1}},
        {"training_method": {"method": "sft", "dpo_beta": 0.1}},
        {"training_method": {"method": "rft"}},
        {"early_stopping_enabled": True, "n_evals": 5},
        {"nonsense": 1},
    ],
    ids=str,
)
def test_what_together_refuses_is_refused_and_makes_no_job(
    client: Together, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    file = uploaded(client, tmp_path, CHAT)
    with pytest.raises((BadRequestError, UnprocessableEntityError)):
        create(client, training_file=file, **wrong)
    assert client.fine_tuning.list().data == []


def test_rows_of_preferences_do_not_train_by_examples(client: Together, tmp_path: Path) -> None:
    file = uploaded(client, tmp_path, PAIR)
    with pytest.raises(BadRequestError, match="does not fit sft"):
        create(client, training_file=file)
    create(client, training_file=file, training_method={"method": "dpo"})
