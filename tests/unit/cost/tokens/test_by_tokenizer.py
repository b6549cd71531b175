"""Open models: counted by their own tokenizer and chat template, where these are here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the extra `local`")

from tokenizers import Tokenizer, models, pre_tokenizers

from unitune.backends.capabilities import StoredModel
from unitune.cost.tokens import Count, by_tokenizer, counter_for
from unitune.cost.tokens.by_tokenizer import (
    CannotRender,
    ChatTemplate,
    TooSlow,
    read_template,
    template_turn,
)
from unitune.data.example import Example, Message
from unitune.workspace.install import install_command

from .conftest import text_tokens

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


SNOW = Message(role="user", content="Snow?")
ROW = Example(messages=(SNOW, Message(role="assistant", content="white")))
PROMPT = 1 + 1 + len("user\nSnow?") + 1 + 1 + 1 + len("assistant\n")
"""A token for each byte and for each special token: <s>, then the turn, then the opening."""
ANSWER = len("white") + 1 + 1


def save(folder: Path, **settings: Any) -> Path:
    """Write a tokenizer with a token for each byte, as a model's folder has it."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={one: at for at, one in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    core.enable_truncation(8)
    core.enable_padding(length=8)
    core.save(str(folder / "tokenizer.json"))
    known = {"bos_token": {"content": "<s>"}, "chat_template": TEMPLATE, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(known), encoding="utf-8")
    return folder


def test_a_row_is_exact_by_the_models_own_template(tmp_path: Path) -> None:
    count = counter_for(str(save(tmp_path))).row(ROW)

    assert Count.of(PROMPT) == count.prompt
    assert Count.of(len("white")) == count.answer
    assert Count.of(PROMPT + ANSWER) == count.total


def test_a_tokenizers_own_cutting_and_padding_do_not_count(tmp_path: Path) -> None:
    counter = counter_for(str(save(tmp_path)))
    assert [text_tokens(counter, "x" * size) for size in (3, 500)] == [Count.of(3), Count.of(500)]


def test_half_of_a_character_counts_as_its_replacement(tmp_path: Path) -> None:
    counter = counter_for(str(save(tmp_path)))
    assert text_tokens(counter, "x\ufffdy") == text_tokens(counter, "x\ud800y")


def test_a_preference_has_both_conversations_in_high_and_its_prompt_once_else(
    tmp_path: Path,
) -> None:
    worse = Message(role="assistant", content="black as coal")
    counter = counter_for(str(save(tmp_path)))
    pair = counter.row(ROW.model_copy(update={"non_preferred_output": (worse,)}))
    one, other = (
        counter.row(Example(messages=(SNOW, said))).total.expected
        for said in (ROW.messages[1], worse)
    )

    assert one + other == pair.total.high
    assert one + other - PROMPT == pair.total.expected


def test_a_stored_model_is_found_by_its_name(tmp_path: Path) -> None:
    stored = [StoredModel(name="smol-test", path=save(tmp_path / "kept"), bytes=0)]

    assert "another vocabulary" in counter_for("smol-test").basis
    assert counter_for("smol-test", stored).row(ROW).total.exact


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_a_hub_model_is_found_in_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    inside = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
    monkeypatch.setenv(variable, str(tmp_path))
    repository = tmp_path / inside[variable] / "models--owner--small"
    save(repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123", encoding="utf-8")

    assert counter_for("owner/small").row(ROW).total.exact
    found = hub.try_to_load_from_cache(
        "owner/small", "tokenizer.json", cache_dir=tmp_path / inside[variable]
    )
    assert str(by_tokenizer.find_tokenizer("owner/small")) == str(Path(found).parent)


def test_without_a_template_the_framing_is_a_range(tmp_path: Path) -> None:
    counter = counter_for(str(save(tmp_path, chat_template=None)))
    count = counter.row(ROW)

    texts = len("Snow?") + len("white")
    assert Count(texts + 2 * 3, texts + 2 * 4, texts + 2 * 8) == count.total
    assert Count.of(len("white")) == count.answer
    assert "no chat template" in counter.assumptions[0]


def test_a_row_that_the_template_refuses_is_a_range(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('Conversation roles must alternate') }}"
    count = counter_for(str(save(tmp_path, chat_template=refusing))).row(ROW)
    assert not count.total.exact


def test_a_template_of_its_own_file_holds(tmp_path: Path) -> None:
    save(tmp_path, chat_template="{{ 'ignored' }}")
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    assert Count.of(PROMPT + ANSWER) == counter_for(str(tmp_path)).row(ROW).total


def test_of_several_templates_the_default_holds(tmp_path: Path) -> None:
    several = [
        {"name": "rag", "template": "no"},
        {"name": "default", "template": TEMPLATE},
    ]
    count = counter_for(str(save(tmp_path, chat_template=several))).row(ROW)
    assert Count.of(PROMPT + ANSWER) == count.total


def test_a_broken_tokenizer_is_a_range_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    counter = counter_for(str(tmp_path))

    assert "another vocabulary" in counter.basis
    assert "tokenizer.json cannot be read" in counter.assumptions[0]


def test_without_the_package_the_count_is_a_range_that_names_the_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune.cost.tokens.counter.find_spec", lambda *_: None)
    counter = counter_for(str(save(tmp_path)))
    assert install_command("local") in counter.assumptions[0]


def rendered(source: str, *messages: Message, tools: Any = None) -> str:
    return ChatTemplate(source, {}).text(messages, tools, asks=False)


def test_templates_have_what_those_of_transformers_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-25")
    marked = "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{% generation %}"
    source = f"{marked}{{{{ m.content }}}}{{% endgeneration %}}{{% endfor %}}"

    assert rendered(source, *ROW.messages) == "Snow?"
    assert rendered("{{ {'a': '<ü>'} | tojson }}") == '{"a": "<ü>"}'
    assert rendered("{{ strftime_now('%d %b %Y') }}") == "25 Nov 2026"


def test_arguments_of_calls_are_objects_for_a_template() -> None:
    call: dict[str, Any] = {"function": {"name": "look", "arguments": '{"at": "moon"}'}}
    turn = Message(role="assistant", tool_calls=(call,))
    source = "{{ messages[0].tool_calls[0].function.arguments.at }}"
    assert rendered(source, turn) == "moon"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for %}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_does_no_harm(source: str) -> None:
    with pytest.raises(CannotRender):
        rendered(source, SNOW)


def test_a_folder_without_settings_has_no_template(tmp_path: Path) -> None:
    assert None is read_template(tmp_path)


def test_a_template_that_takes_too_long_is_given_up_and_not_tried_again() -> None:
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TooSlow, match="longer than 1 s"):
        ChatTemplate(loops, {}).text([Message(role="user", content="q")], asks=False)


def test_arguments_of_a_call_that_are_nested_too_deeply_stay_text() -> None:
    call: dict[str, Any] = {"function": {"name": "f", "arguments": "[" * 50_000}}
    turn = template_turn(Message(role="assistant", content="", tool_calls=(call,)))
    assert turn["tool_calls"] == [call]
