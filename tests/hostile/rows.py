"""Rows of data files: JSON Lines, tables, vendors' own formats."""

from __future__ import annotations

import json

from hostile.attempts import Attempt
from hostile.examples import FILES, JOBS, as_file, job
from hostile.values import damaged, spoilt_lines, texts
from hypothesis import strategies as st

from unitune.backends.formats import format_names

TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    },
}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
CHAT = [
    {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "weight": 1},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "1", "content": "r"},
            {"role": "assistant", "content": "a"},
        ],
        "tools": [TOOL],
        "weight": 0.5,
        "id": "x",
        "required": True,
    },
]
PICTURED = [
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "q"},
                    {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
                ],
            },
            {"role": "assistant", "content": "a"},
        ]
    }
    for url in (
        "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==",
        "https://example.com/a.png",
        "../../../etc/passwd",
    )
]
PREFERENCES = [
    {
        "input": {"messages": [{"role": "user", "content": "q"}], "tools": [TOOL]},
        "preferred_output": [{"role": "assistant", "content": "good"}],
        "non_preferred_output": [{"role": "assistant", "content": "bad"}],
    },
    {"prompt": "q", "chosen": "good", "rejected": "bad"},
    {"prompt": [{"role": "user", "content": "q"}], "completion": "a", "label": True},
]
VERTEX = [
    {
        "contents": [
            {"role": "user", "parts": [{"text": "q"}]},
            {"role": "model", "parts": [{"text": "a"}]},
        ],
        "systemInstruction": {"parts": [{"text": "s"}]},
    }
]
FOREIGN = [
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"instruction": "i", "input": "j", "output": "o"},
    {"question": "q", "answer": 1, "expected": "x", "grading": {"a": [1]}},
    {
        "system": "s",
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    },
]
PLAIN = [{"prompt": f"{at * 7919}?", "completion": "Paris"} for at in range(12)]
SOURCES = (CHAT, PICTURED, PREFERENCES, VERTEX, FOREIGN, PLAIN, CHAT + PLAIN)


@st.composite
def rows(draw: st.DrawFn) -> Attempt:
    """Return a file of rows that is not as it should be, as train, dev or test or by itself."""
    content = draw(spoilt_lines(draw(st.sampled_from(SOURCES))))
    name = draw(st.sampled_from(("train", "dev", "test", "own"))) + ".jsonl"
    formats = format_names()
    of_a_file = (
        ("check", name),
        ("check", name, "--json"),
        ("init", "--data", name),
        (
            "data",
            "convert",
            name,
            "--to",
            draw(st.sampled_from(formats)),
            "--drop",
            "-o",
            "out.jsonl",
        ),
        ("data", "convert", name, "--to", draw(st.sampled_from(formats))),
        ("data", "convert", name, "--from", draw(st.sampled_from(formats)), "--drop"),
    )
    of_a_job = (
        ("check", "job.yaml"),
        ("plan", "job.yaml", "--all"),
        ("plan", "job.yaml", "--show-tokens"),
        ("run", "job.yaml", "--quiet"),
        ("cost", "job.yaml"),
        ("compare", "job.yaml", "--quiet"),
    )
    chosen = draw(st.sampled_from(of_a_file if name == "own.jsonl" else of_a_file + of_a_job * 2))
    tree = draw(
        st.sampled_from(
            (job(), job(method="dpo"), job(method="rft"), JOBS["recorded"], JOBS["scored"])
        )
    )
    return Attempt((chosen,), {**FILES, "job.yaml": as_file(tree), name: content})


@st.composite
def tables(draw: st.DrawFn) -> Attempt:
    """Return a table that is not as it should be, and a mapping for it."""
    cell = texts() | st.sampled_from(("where?", "here", '"', "a\nb", ";", "\t"))
    lines = draw(st.lists(st.lists(cell, min_size=1, max_size=4), min_size=1, max_size=5))
    mark = draw(st.sampled_from((",", ";", "\t", "|")))
    written = "\n".join(
        mark.join(json.dumps(c) if draw(st.booleans()) else c for c in line) for line in lines
    )
    whole = ("question,answer,note\n" + written).encode("utf-8", "surrogatepass")
    content = draw(damaged(whole) | st.just(whole))
    name = draw(
        st.sampled_from(("table.csv", "table.tsv", "table.json", "table.parquet", "table.jsonl.gz"))
    )
    template = {
        "user": draw(st.sampled_from(("{{ question }}", "{{ question.x.y() }}")) | texts()),
        "assistant": "{{ answer }}",
    }
    mapping = draw(
        st.sampled_from(({"columns": {"user": "question", "assistant": "answer"}}, {}))
        | st.just({"template": template})
    )
    tree = job(data={"train": name, **mapping})
    commands = (
        ("check", name),
        ("init", "--data", name),
        ("check", "job.yaml"),
        ("plan", "job.yaml"),
        ("run", "job.yaml", "--quiet"),
        ("data", "convert", name, "--to", "openai-chat", "--drop"),
    )
    return Attempt(
        (draw(st.sampled_from(commands)),), {**FILES, "job.yaml": as_file(tree), name: content}
    )
