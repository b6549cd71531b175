"""Count how plan, launch and compare of a small job move between the folders of the core.

A walk is the order in which functions are first called. A return is a stay in a folder that the
walk had left. A climb is a function that calls another one further right in the order
of CONTRIBUTING.md, e.g. a callback. The fake backend stands for a vendor and is left out.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import FrameType

import unitune

ROOT = Path(unitune.__file__).parent
TEXT = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
(ORDER,) = re.findall(r"^errors, findings.* < .+(?:\n.+)*", TEXT, re.MULTILINE)
RANKS = {name: at for at, some in enumerate(ORDER.split("<")) for name in re.findall(r"\w+", some)}
JOB = """{name: doubling, model: tiny, backend: fake,
data: {train: rows.csv, test: 0.5, validation: 0.2},
evaluate: {scorers: [exact], contenders: [zero-shot, tuned]}}"""


def folder(frame: FrameType | None) -> str:
    """Return the folder of a frame, or "" if it is not counted."""
    path = Path(frame.f_code.co_filename if frame else "")
    name = path.relative_to(ROOT).parts[0].removesuffix(".py") if ROOT in path.parents else ""
    return name if name in RANKS and name != "testing" else ""


def walk(name: str, step: Callable[[], object]) -> None:
    """Print the figures of one step."""
    first, climbs = dict[object, str](), set[str]()

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>" and (here := folder(frame)):
            first.setdefault(frame.f_code, here)
            caller = frame.f_back
            while folder(caller) == "workspace":  # a client's settings wrap a run's methods
                caller = caller.f_back if caller else None
            if caller and (there := folder(caller)) and RANKS[there] < RANKS[here]:
                climbs.add(f"{caller.f_code.co_qualname} -> {frame.f_code.co_qualname}")

    sys.setprofile(called)
    step()
    sys.setprofile(None)
    stays = [each for each, _ in groupby(first.values())]
    returns = len(stays) - len(set(stays))
    print(f"{name}: {returns} returns, {len(climbs)} climbs: {', '.join(sorted(climbs))}")


os.environ["UNITUNE_DIR"] = here = tempfile.mkdtemp()
os.chdir(here)
ROWS = "\n".join(["prompt,completion", *(f"{n} + {n}?,{2 * n}" for n in range(200))])
Path("rows.csv").write_text(ROWS, encoding="utf-8")
Path("job.yaml").write_text(JOB, encoding="utf-8")
job = unitune.Job.load("job.yaml")
walk("plan", lambda: unitune.plan(job))
walk("launch", lambda: unitune.launch(job, budget=5).wait())
walk("compare", lambda: unitune.compare(job))
