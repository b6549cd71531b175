"""A model behind an async client: what chats over the network share, whatever the client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from unitune.backends.kit.errors import Vendor
from unitune.models import ChatModel


class AsyncClient(Protocol):
    """What holds connections."""

    async def close(self) -> None:
        """Close them."""
        ...


Client = TypeVar("Client", bound=AsyncClient)


class RemoteChatModel(ChatModel, Generic[Client]):
    """A model behind an async client, which is made in the event loop of the first request.

    Args:
        fingerprint: As `ChatModel.fingerprint`.
    """

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def new_client(self) -> Client:
        """Return a client for the running event loop."""
        raise NotImplementedError

    def client(self) -> Client:
        """Return the client of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self.new_client(), loop
        return self._client

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that requests go to.

    Args:
        vendor: Who answers there.
        url: Base URL, with its version.
        headers: Sent with each request, a key among them.
    """

    vendor: Vendor
    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
