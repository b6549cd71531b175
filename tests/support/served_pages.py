"""Pages of `unitune ui` on a server of their own, for tests in a browser."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from aiohttp import web


class served:  # noqa: N801 - a context manager
    """Serve an application from a thread while the body runs."""

    def __init__(self, app: web.Application) -> None:
        self._app, self._loop = app, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> str:
        self._thread.start()
        self._runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=1.0)
        self._in_loop(self._runner.setup())
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        self._in_loop(site.start())
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def __exit__(self, *_: object) -> None:
        self._in_loop(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _in_loop(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
