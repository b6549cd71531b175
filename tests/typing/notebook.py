"""Run the cells of a notebook, where an event loop is running and cells may await."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import assert_type

import unitune


async def cells(run: unitune.Run) -> None:
    """Use the model of a run, inside a running event loop."""
    # [start:cells]
    questions = [f"What is {n} plus {n}?" for n in range(8)]
    replies = await asyncio.gather(*map(run.model.reply, questions))
    for question, reply in zip(questions, replies, strict=True):
        print(question, reply.text or reply.error)

    print(run.model.ask("What is 4 plus 4?"))  # also works without await
    # [end:cells]
    assert_type(replies, list[unitune.types.Reply])
    assert [str(2 * n) for n in range(8)] == [reply.text for reply in replies]


async def main() -> None:
    Path("train.jsonl").write_text(
        "".join(
            f'{{"prompt": "What is {n} plus {n}?", "completion": "{2 * n}"}}\n' for n in range(80)
        ),
        encoding="utf-8",
    )
    job = unitune.Job(
        name="doubling",
        model="tiny",
        backend="fake",
        data=unitune.Data(train="train.jsonl", validation="train.jsonl"),
        evaluate=unitune.Evaluate(leaks="allow"),
    )
    await cells(unitune.launch(job).wait())


asyncio.run(main())
