"""Build the MCP server of a project folder and serve it on standard input and output."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitune._version import __version__
from unitune.cli.streams import explained, first
from unitune.mcp.launching import LaunchingTools
from unitune.mcp.tools import Document, ReadingTools
from unitune.security.redaction import printable, redacted

if TYPE_CHECKING:
    from mcp.server import MCPServer

READING = ("check", "plan", "runs", "show", "comparisons", "decide", "cost", "schema")
LAUNCHING = ("run", "compare", "cancel")
INSTRUCTIONS = (
    "unitune tunes models at vendors or on this machine and compares them with the best prompt. "
    "Call check and plan first, and show the user the findings and the cost. "
)
READ_ONLY = (
    "This server launches nothing. To allow launches, the user starts it with `unitune mcp "
    "--allow-launch --budget USD`."
)
WITH_LAUNCHES = (
    "Before run or compare, ask the user to confirm the plan, then pass its plan_hash. Launches of "
    "this session cost at most ${} together. Never deploy a model unless the user asks for it."
)


def build(root: Path, budget: Decimal | None) -> MCPServer[Any]:
    """Return the server of a folder; without a budget, its tools only read."""
    from mcp.server import MCPServer
    from mcp_types import ToolAnnotations

    tools = ReadingTools(root) if budget is None else LaunchingTools(root, budget)
    more = READ_ONLY if budget is None else WITH_LAUNCHES.format(budget)
    server = MCPServer[Any](
        "unitune", version=__version__, instructions=INSTRUCTIONS + more, log_level="WARNING"
    )
    for name in READING if budget is None else READING + LAUNCHING:
        hints = ToolAnnotations(
            read_only_hint=name in READING,
            destructive_hint=name == "cancel",
            idempotent_hint=True,
            open_world_hint=name in ("show", *LAUNCHING),
        )
        server.add_tool(_explained(getattr(tools, name)), name, annotations=hints)
    return server


def serve(root: Path, budget: Decimal | None) -> None:
    """Serve until standard input closes."""
    build(root, budget).run("stdio")


def _explained(tool: Callable[..., Document]) -> Callable[..., Document]:
    """Return a tool whose errors have the text and the codes of the command line's."""
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(tool)
    def call(**arguments: Any) -> Document:
        try:
            return tool(**arguments)
        except Exception as error:
            if (cause := first(error)) is None:
                raise
            known = explained(cause, [])
            text = printable(redacted(str(known)))
            raise ToolError(f"{text} ({known.code}, exit code {known.exit_code})") from error

    return call
