"""What a job says about chat templates, tools and reasoning, and what the model then sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_model import END, START, TEMPLATE, tiny_tokenizer, write_rows
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from unitune.backends.protocol import Launch, Upload
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message
from unitune.errors import JobError
from unitune.files.filesystem import sha256
from unitune.job.job import Job
from unitune_local.data.chat_text import TemplateError, set_format, with_request
from unitune_local.data.rendering import Rendered, render, render_prompt, turn_end, turn_ends
from unitune_local.data.rows import render_rows
from unitune_local.inference.answers import Answer, Ending, Generated, Sampling
from unitune_local.inference.structured import read_calls
from unitune_local.options import ChatFormat
from unitune_local.training.run import prepare

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Oslo", "days": 3}'},
}
ASKS, CALLS = (
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "tool_calls": [CALL]},
)
RESULT = {"role": "tool", "tool_call_id": "1", "content": '{"sky": "clear"}'}
THINKS = TEMPLATE.replace(
    "{{ message['content'] }}",
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n"
    "{% endif %}{{ message['content'] }}",
)
REWRITES = TEMPLATE.replace(
    "{{ message['content'] }}",
    "{{ message['content'] }}{{ '!' if message.role == 'assistant' and not loop.last }}",
)
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
REASONS = {
    "messages": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "yes", "reasoning_content": "because"},
    ]
}


def example(*messages: dict[str, Any], **more: Any) -> Example:
    return Example.model_validate({"messages": messages, **more})


def tokenizer(template: str, *added: str, **form: Any) -> PreTrainedTokenizerFast:
    made = tiny_tokenizer()
    made.chat_template = template
    made.add_special_tokens({"additional_special_tokens": [*added]})
    set_format(made, ChatFormat(**form))
    return made


def learnt(made: PreTrainedTokenizerFast, sample: Rendered) -> str:
    pairs = zip(sample.ids, sample.trained, strict=True)
    return made.decode([index for index, on in pairs if on])


def hermes() -> PreTrainedTokenizerFast:
    job = Job(name="t", model="m", backend="local", data={"chat_template": "hermes"})
    return tokenizer(str(job.chat_template))


@pytest.mark.parametrize("tools", [[WEATHER], None])
def test_a_call_that_the_template_leaves_out_is_refused_with_file_and_line(tools: Any) -> None:
    """It was trained as an empty answer where a row has no tools."""
    rows = Dataset("rows.jsonl", (Row(7, example(ASKS, CALLS, tools=tools)),))
    (finding,) = render_rows(tokenizer(TEMPLATE), rows, 512).findings
    assert finding.location == "rows.jsonl:7"
    expected = "ignores tools" if tools else "leaves out the call of 'weather' in message 2"
    assert expected in finding.message


@pytest.mark.parametrize(
    ("written", "missing"),
    [
        ("{{ call.function.name }}", "'Oslo' in the call of 'weather'"),
        ("{{ call.function.name }}{{ call.function.arguments.city }}", "'3' in the call"),
        ("{{ call.function.arguments | tojson }}", "the call of 'weather'"),
    ],
)
def test_a_part_of_a_call_that_the_template_leaves_out_is_named(written: str, missing: str) -> None:
    calls = f"{{% for call in message.tool_calls or [] %}}{written}{{% endfor %}}"
    template = TEMPLATE.replace("{{ message['content'] }}", f"{{{{ message['content'] }}}}{calls}")
    with pytest.raises(TemplateError, match=missing):
        render(tokenizer(template), example(ASKS, CALLS))


def test_a_second_call_that_the_template_leaves_out_is_refused() -> None:
    """As gpt-oss's template does."""
    first = (
        "{% for call in (message.tool_calls or [])[:1] %}{{ call.function | tojson }}{% endfor %}"
    )
    template = TEMPLATE.replace("{{ message['content'] }}", f"{{{{ message['content'] }}}}{first}")
    render(tokenizer(template), example(ASKS, CALLS))
    twice = {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "2"}]}
    with pytest.raises(TemplateError, match="leaves out the call of 'weather'"):
        render(tokenizer(template), example(ASKS, twice))


def test_a_result_that_the_template_leaves_out_is_refused() -> None:
    template = "{{ tools | tojson }}" + TEMPLATE.replace(
        "{{ message['content'] }}",
        "{{ message['content'] if message.role != 'tool' }}"
        "{{ (message.tool_calls or []) | tojson }}",
    )
    row = example(ASKS, CALLS, RESULT, {"role": "assistant", "content": "Clear."}, tools=[WEATHER])
    with pytest.raises(TemplateError, match="leaves out message 3, tool"):
        render(tokenizer(template), row)


def test_the_template_hermes_carries_tools_calls_and_results() -> None:
    """Its calls are those that answers are searched for."""
    made = hermes()
    row = example(ASKS, CALLS, RESULT, {"role": "assistant", "content": "Clear."}, tools=[WEATHER])
    (sample,) = render(made, row)
    text = made.decode(sample.ids)
    assert json.dumps(WEATHER) in text
    assert '<tool_response>\n{"sky": "clear"}\n</tool_response>' in text
    call, answer, _ = learnt(made, sample).split(END)
    assert answer == "Clear."
    (read,) = read_calls(call, [WEATHER]).calls
    assert CALL["function"] == read["function"]
    prompt = render_prompt(made, row.messages[:3], row.tools)
    assert prompt == sample.ids[: len(prompt)]


def test_a_named_template_for_tools_is_used_for_rows_with_tools() -> None:
    """Command R and Hermes 2 name several."""
    made = tokenizer(TEMPLATE)
    made.chat_template = {"default": TEMPLATE, "tool_use": "{{ tools | tojson }}" + TEMPLATE}
    question = [Message(role="user", content="q")]
    assert "weather" in made.decode(render_prompt(made, question, [WEATHER]))
    assert made.decode(render_prompt(made, question)).startswith(START)
    assert made.convert_tokens_to_ids(END) == turn_end(made)


def test_an_end_whose_text_is_in_every_token_is_found() -> None:
    """Granite ends turns with <|end_of_text|>, whose letters an examined answer had, too."""
    made = tokenizer(TEMPLATE.replace(END, "<|end_of_text|>"), "<|end_of_text|>")
    assert made.convert_tokens_to_ids("<|end_of_text|>") == turn_end(made)


def test_of_two_tokens_that_end_each_turn_the_last_is_the_end() -> None:
    """As with Command A."""
    made = tokenizer(TEMPLATE.replace(END, "<|response|><|turn|>"), "<|response|>", "<|turn|>")
    assert made.convert_tokens_to_ids("<|turn|>") == turn_end(made)
    (sample,) = render(made, example(TURNS[0], {**TURNS[1], "content": "yes"}))
    assert learnt(made, sample) == "yes<|response|><|turn|>"


def test_a_token_that_only_ends_the_text_is_not_the_end_of_a_turn() -> None:
    """As with Phi 3."""
    made = tokenizer(
        TEMPLATE + "{% if not add_generation_prompt %}<|endoftext|>{% endif %}", "<|endoftext|>"
    )
    assert turn_ends(made) == {made.convert_tokens_to_ids(END)}


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [("train", f"<think>\nbecause\n</think>\n\nyes{END}"), ("mask", f"yes{END}")],
)
def test_reasoning_is_trained_or_only_shown(reasoning: str, expected: str) -> None:
    made = tokenizer(THINKS, reasoning=reasoning)
    (sample,) = render(made, Example.model_validate(REASONS))
    assert expected == learnt(made, sample)
    assert "because" in made.decode(sample.ids)


def test_reasoning_that_the_template_leaves_out_is_refused() -> None:
    with pytest.raises(TemplateError, match="leaves out the reasoning of message 2: 'because'"):
        render(tokenizer(TEMPLATE), Example.model_validate(REASONS))


def test_an_answer_begins_with_reasoning_where_its_prompt_does() -> None:
    """DeepSeek R1's distillations open reasoning in the prompt, and write none afterwards."""
    made = tokenizer(TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"))
    (sample,) = render(made, Example.model_validate(REASONS))
    assert learnt(made, sample) == f"because\n</think>\n\nyes{END}"
    question = [Message(role="user", content="q")]
    prompt = render_prompt(made, question)
    assert made.decode(prompt).endswith("<think>\n")
    assert prompt == sample.ids[: len(prompt)]


def test_variables_of_the_template_come_from_the_job_and_from_a_request() -> None:
    template = TEMPLATE + "{{ '<think>' if enable_thinking is not defined or enable_thinking }}"
    question = [Message(role="user", content="q")]
    plain, job = tokenizer(template), tokenizer(template, kwargs={"enable_thinking": False})
    assert plain.decode(render_prompt(plain, question)).endswith("<think>")
    assert not job.decode(render_prompt(job, question)).endswith("<think>")
    asked = with_request(job, None, {"enable_thinking": True})
    assert job.decode(render_prompt(asked, question)).endswith("<think>")
    assert not job.decode(render_prompt(job, question)).endswith("<think>")


def test_a_template_sees_the_day_of_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{{ strftime_now('%d %B %Y') }}" + TEMPLATE
    question = [Message(role="user", content="q")]
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-30")
    launched = tokenizer(template, day="2026-01-02")
    assert launched.decode(render_prompt(launched, question)).startswith("02 January 2026")
    other = tokenizer(template)
    assert other.decode(render_prompt(other, question)).startswith("30 November 2026")


@pytest.mark.parametrize(("knows", "role"), [("", "system"), ("{# 'developer' #}", "developer")])
def test_developer_is_system_where_the_template_has_no_such_role(knows: str, role: str) -> None:
    made = tokenizer(knows + TEMPLATE)
    turns = [Message(role="developer", content="d"), Message(role="user", content="q")]
    assert f"{START}{role}\nd" in made.decode(render_prompt(made, turns))


def test_a_plan_counts_the_samples_that_rows_make() -> None:
    rows = (Row(1, example(*TURNS, *TURNS)), Row(2, example(*TURNS)))
    made = render_rows(tokenizer(REWRITES), Dataset("rows.jsonl", rows), 512)
    assert len(made.rows) == 3
    (finding,) = made.findings
    assert finding.code == "samples"
    assert "1 of 2 rows are trained as 2 samples" in finding.message
    assert render_rows(tokenizer(TEMPLATE), Dataset("rows.jsonl", rows), 512).findings == ()


def test_samples_of_one_row_are_not_counted_as_rows() -> None:
    rows = Dataset("rows.jsonl", (Row(1, example(*TURNS, *TURNS)),))
    made = render_rows(tokenizer(REWRITES), rows, 1, "drop")
    assert made.rows == ()
    assert any(each.message.startswith("2 of 2 samples are longer") for each in made.findings)


def test_pieces_are_tokenised_as_in_the_whole_text() -> None:
    """SentencePiece writes a blank before a text, and not before each piece of it."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz:/[]", "▁a", "▁q"]
    vocabulary = {letter: at for at, letter in enumerate(letters)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "a"), ("▁", "q")]))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Replace("▁", " ")
    core.add_special_tokens([END])
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END)
    made.chat_template = (
        "{% for turn in messages %}{% if turn.role == 'user' %}[i] {{ turn.content }} [/i]"
        "{% else %} {{ turn.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    (sample,) = render(made, example(*TURNS))
    text = f"[i] q [/i] a{END}"
    assert made(text, add_special_tokens=False)["input_ids"] == sample.ids
    assert made.convert_ids_to_tokens(
        [index for index, on in zip(sample.ids, sample.trained, strict=True) if on]
    ) == ["▁a", END]


def finished(text: str, template: str, *, opened: bool = False) -> Generated:
    made = tokenizer(template)
    ending = Ending(frozenset({made.eos_token_id}), made)
    answer = Answer(0, [], Sampling(), ending, opened=opened)
    for index in made.encode(text + END, add_special_tokens=False):
        answer.add(index)
    return answer.finished()


def test_reasoning_is_no_part_of_an_answer() -> None:
    whole = finished("<think>\nbecause\n</think>\n\nyes", THINKS)
    assert (whole.text, whole.reasoning) == ("yes", "because")
    opened = finished("because\n</think>\n\nyes", THINKS, opened=True)
    assert (opened.text, opened.reasoning) == ("yes", "because")
    plain = finished("<think>a</think>yes", TEMPLATE)
    assert plain.text == "<think>a</think>yes", "the template knows nothing of it"


def test_a_job_keeps_its_own_template_when_it_is_saved_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages }}", encoding="utf-8")
    (tmp_path / "a.yaml").write_text(
        "name: t\nmodel: m\nbackend: local\ndata: {chat_template: own.jinja}\n"
    )
    job = Job.load(tmp_path / "a.yaml")
    assert ChatFormat.of(job).template == "{{ messages }}"
    (tmp_path / "deeper").mkdir()
    job.save(tmp_path / "deeper" / "b.yaml")
    assert Job.load(tmp_path / "deeper" / "b.yaml").chat_template == "{{ messages }}"
    (tmp_path / "own.jinja").unlink()
    with pytest.raises(JobError, match=r"own\.jinja"):
        _ = job.chat_template


def test_a_training_keeps_the_day_of_its_launch(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that is resumed on another day renders the same rows."""
    monkeypatch.setenv("UNITUNE_TODAY", "2026-01-02")
    rows = write_rows(tmp_path / "train.jsonl", 4)
    upload = Upload(str(rows), sha256(rows))
    data = {"chat_template_kwargs": {"enable_thinking": False}, "reasoning": "mask"}
    job = Job(name="t", model=str(tiny_model), backend="local", data=data)
    spec = prepare(Launch("run-1", job, upload, None, tmp_path))
    expected = ChatFormat(kwargs={"enable_thinking": False}, reasoning="mask", day="2026-01-02")
    assert expected == spec.settings.chat
    assert expected == type(spec).model_validate_json(spec.model_dump_json()).settings.chat
