"""Send the same requests with a bare aiohttp loop, keeping only the share of right answers.

python bare_aiohttp.py URL CASES CONCURRENCY
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import aiohttp


async def main(url: str, cases: list[dict[str, str]], concurrency: int) -> None:
    """Send all cases, so many at once."""
    left, right = iter(cases), 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def work() -> None:
            nonlocal right
            for case in left:
                messages = [{"role": "user", "content": case["question"]}]
                body = {"model": "m", "messages": messages, "max_tokens": 16, "temperature": 0}
                async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                    said = await answer.json()
                right += said["choices"][0]["message"]["content"] == case["expected"]

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    print(right / len(cases))


if __name__ == "__main__":
    rows = Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()
    asyncio.run(main(sys.argv[1], [json.loads(row) for row in rows], int(sys.argv[3])))
