"""Send the same requests through the openai SDK and nothing else.

python bare_openai.py URL CASES CONCURRENCY
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from openai import AsyncOpenAI


async def main(url: str, cases: list[dict[str, str]], concurrency: int) -> None:
    """Send all cases, so many at once."""
    left, right = iter(cases), 0
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:

        async def work() -> None:
            nonlocal right
            for case in left:
                said = await client.chat.completions.create(
                    model="m",
                    messages=[{"role": "user", "content": case["question"]}],
                    max_tokens=16,
                    temperature=0,
                )
                right += said.choices[0].message.content == case["expected"]

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    print(right / len(cases))


if __name__ == "__main__":
    rows = Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()
    asyncio.run(main(sys.argv[1], [json.loads(row) for row in rows], int(sys.argv[3])))
