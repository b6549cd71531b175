from typing import Any

import judges_words


class Judge:
    @staticmethod
    def is_b(output: str, _context: dict[str, Any]) -> bool:
        return output == judges_words.WANTED


async def slowly(output: str, context: dict[str, Any]) -> dict[str, Any]:
    return {"pass": Judge.is_b(output, context), "score": 1, "reason": "awaited"}
