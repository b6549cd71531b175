"""Serve a model on loopback: chat completions after a fixed time, about three of four right.

    python server.py --latency 0.05 [--refuse SHARE] [--cut SHARE] [--slow SHARE] [--down-after N]

Prints its address; ends with its standard input. ``GET /count`` returns the number of requests and
the maximum in flight. Answers depend on the hash of model and question, so every harness must find
the same share right. Faults, by shares of the requests: a 429 with a wait of a second, a body that
ends too early, an answer two seconds late; or nothing but 503 after so many requests.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
from typing import Any

from aiohttp import web


class Model:
    """Model that answers and counts."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.asked = self.flying = self.most = self.answered = 0
        self._lots = random.Random(0)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one question, or fail."""
        self.asked += 1
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            return await self._answer(request)
        finally:
            self.flying -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        lot = self._lots.random()
        if self.given.down_after is not None and self.asked > self.given.down_after:
            return web.json_response({"error": {"message": "down"}}, status=503)
        if lot < self.given.refuse:
            wait = {"Retry-After": "1"}
            return web.json_response({"error": {"message": "slow"}}, status=429, headers=wait)
        lot -= self.given.refuse
        late = 2.0 if 0 <= lot - self.given.cut < self.given.slow else 0.0
        if self.given.latency or late:
            await asyncio.sleep(self.given.latency + late)
        answer = completion(body, self.asked)
        if 0 <= lot < self.given.cut:
            return await self._cut(request, answer)
        self.answered += 1
        return web.json_response(answer)

    async def _cut(self, request: web.Request, answer: dict[str, Any]) -> web.StreamResponse:
        content = json.dumps(answer).encode()
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    async def count(self, _: web.Request) -> web.Response:
        """Return the counts, and reset them."""
        told = {"asked": self.asked, "answered": self.answered, "most_in_flight": self.most}
        self.asked = self.answered = self.most = 0
        return web.json_response(told)


def expected(question: str) -> str:
    """Return the right answer to a question."""
    return f"label-{int(hashlib.sha256(question.encode()).hexdigest()[:8], 16) % 7}"


def answer_to(model: str, question: str) -> str:
    """Return a model's answer: ``m`` is right for 76 % of the questions, ``better`` for 92 %."""
    lot = int(hashlib.sha256(question.encode()).hexdigest()[8:16], 16) / 2**32
    return expected(question) if lot < {"better": 0.92}.get(model, 0.76) else "label-none"


def completion(body: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the answer to a request, in full."""
    text = answer_to(body["model"], body["messages"][-1]["content"])
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1764000000,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22},
    }


async def serve(given: argparse.Namespace) -> None:
    """Serve until standard input ends."""
    model = Model(given)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", model.answer)
    app.router.add_get("/count", model.count)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.05)
    for share in ("--refuse", "--cut", "--slow"):
        parser.add_argument(share, type=float, default=0.0)
    parser.add_argument("--down-after", type=int)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
