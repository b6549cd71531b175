"""A model on loopback: chat completions after a fixed time, right for about three of four cases.

    python server.py --latency 0.05

Prints its address; ends with its standard input. ``GET /count`` tells how many requests came and
how many were in flight at most. Answers go by the hash of the question, so every harness must find
the same share right.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys

from aiohttp import web


class Model:
    """Answers, and counts."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.asked = self.flying = self.most = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one question."""
        self.asked += 1
        self.flying += 1
        self.most = max(self.most, self.flying)
        body = json.loads(await request.read())
        if self.latency:
            await asyncio.sleep(self.latency)
        question = body["messages"][-1]["content"]
        self.flying -= 1
        usage = {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}
        message = {"role": "assistant", "content": answer_to(question), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        answer = {
            "id": f"chatcmpl-{self.asked}",
            "object": "chat.completion",
            "created": 1764000000,
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }
        return web.json_response(answer)

    async def count(self, _: web.Request) -> web.Response:
        """Tell what came, and begin anew."""
        told = {"asked": self.asked, "most_in_flight": self.most}
        self.asked = self.most = 0
        return web.json_response(told)


def expected(question: str) -> str:
    """Return the right answer to a question."""
    return f"label-{int(hashlib.sha256(question.encode()).hexdigest()[:8], 16) % 7}"


def answer_to(question: str) -> str:
    """Return what the model says: right for 76 % of the questions."""
    lot = int(hashlib.sha256(question.encode()).hexdigest()[8:16], 16) / 2**32
    return expected(question) if lot < 0.76 else "label-none"


async def serve(latency: float) -> None:
    """Serve until standard input ends."""
    model = Model(latency)
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.05)
    asyncio.run(serve(parser.parse_args().latency))
