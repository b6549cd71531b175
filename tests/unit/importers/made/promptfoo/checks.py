from typing import Any


def get_assert(output: str, context: dict[str, Any]) -> bool:
    wanted: str = context["vars"]["want"]
    return output == wanted and len(output) <= context["config"]["most"]
