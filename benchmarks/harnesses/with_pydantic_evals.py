"""Evaluate the same cases with pydantic-evals, over the openai SDK.

python with_pydantic_evals.py URL CASES CONCURRENCY
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from openai import AsyncOpenAI
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import EqualsExpected


async def main(url: str, cases: list[dict[str, str]], concurrency: int) -> None:
    """Evaluate all cases, so many at once."""
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="k")

    async def answer(question: str) -> str:
        said = await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": question}],
            max_tokens=16,
            temperature=0,
        )
        return said.choices[0].message.content or ""

    dataset = Dataset(
        name="cases",
        cases=[
            Case(name=str(at), inputs=case["question"], expected_output=case["expected"])
            for at, case in enumerate(cases)
        ],
        evaluators=[EqualsExpected()],
    )
    report = await dataset.evaluate(answer, max_concurrency=concurrency, progress=False)
    averages = report.averages()
    print(averages.assertions if averages else 0)


if __name__ == "__main__":
    rows = Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()
    asyncio.run(main(sys.argv[1], [json.loads(row) for row in rows], int(sys.argv[3])))
