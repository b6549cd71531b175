"""What a training on another machine leaves in the storage, as a double pretends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from unitune.testing.vendor_setup import Progress, ServerBehavior, loss


def store_training(
    folder: Path,
    progress: Progress,
    behavior: ServerBehavior,
    launch: dict[str, Any],
    *,
    adapter: Path | None,
    succeeded: bool,
) -> None:
    """Write the events of so many steps, and at the end an adapter that was made before."""
    events = [
        {
            "key": f"step-{step}",
            "kind": "step",
            "time": progress.created + step,
            "data": {"step": step, "loss": loss(step)},
        }
        for step in range(1, progress.steps(behavior) + 1)
    ]
    text = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "events").mkdir(parents=True, exist_ok=True)
    (folder / "events" / f"{0:012}.jsonl").write_text(text, encoding="utf-8")
    if succeeded and not (folder / "result.json").exists():
        if adapter is not None:
            shutil.copytree(adapter, folder / "adapter", dirs_exist_ok=True)
        model = {"backend": "local", "name": "of its node", "base": launch["job"]["model"]}
        result = json.dumps({"state": "succeeded", "model": model})
        (folder / "result.json").write_text(result, encoding="utf-8")
