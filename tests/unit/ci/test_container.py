"""The container image: what its Dockerfile copies, installs and runs; built where Docker runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.command_line import ran

dockerfile_parse = pytest.importorskip("dockerfile_parse", reason="needs the extra `dev`")
pytest.importorskip("fsspec", reason="needs the extra `hf-jobs`")

ROOT = Path(__file__).parents[3]
TARGETS = ("cpu", "cuda")
BUILD_SECONDS = 1800
Stage = list[tuple[str, str]]  # instructions with their values


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, Stage]:
    """The instructions of each stage, by its name, with those of the stage that it starts from."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    parser: Any = dockerfile_parse.DockerfileParser(str(tmp_path / "Dockerfile"))
    parser.content = text
    stages: dict[str, Stage] = {}
    current: Stage = []
    for each in parser.structure:
        if each["instruction"] == "FROM":
            image, _, name = each["value"].partition(" AS ")
            current = stages[name] = [*stages.get(image, []), ("FROM", image)]
        elif each["instruction"] != "COMMENT":
            current.append((each["instruction"], each["value"]))
    return stages


def values(stage: Stage, instruction: str) -> list[str]:
    return [value for name, value in stage if name == instruction]


def ignored() -> Iterator[str]:
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line.startswith("!"):
            yield line.removeprefix("!")


def test_targets_start_from_an_image_that_is_pinned_by_its_tag(stages: dict[str, Stage]) -> None:
    assert [*stages] == ["base", *TARGETS]
    for image in values(stages["base"], "FROM"):
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]+", image), image


@pytest.mark.parametrize("target", TARGETS)
def test_the_worker_runs_without_root(stages: dict[str, Stage], target: str) -> None:
    stage = stages[target]
    assert stage[-2:] == [
        ("USER", "unitune"),
        ("CMD", '["python", "-P", "-m", "unitune_local.remote.worker"]'),
    ]
    assert "useradd --create-home --uid 1000 unitune" in values(stage, "RUN")
    command = json.loads(values(stage, "CMD")[0])
    assert find_spec(command[-1])


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_copied_exists_and_is_sent_to_docker(stages: dict[str, Stage], target: str) -> None:
    copied = [path for value in values(stages[target], "COPY") for path in value.split()[:-1]]
    assert sorted(copied) == sorted(ignored())
    assert all((ROOT / path).exists() for path in copied)
    build: Any = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = build["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], build["project"]["readme"]]
    assert all(any(path == one or path.startswith(f"{one}/") for one in copied) for path in needed)


@pytest.mark.parametrize("target", TARGETS)
def test_extras_that_are_installed_exist(stages: dict[str, Stage], target: str) -> None:
    (install,) = (run for run in values(stages[target], "RUN") if run.startswith("pip install"))
    (extras,) = re.findall(r'"\.\[([\w,-]+)\]"', install)
    build: Any = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(extras.split(",")) <= build["project"]["optional-dependencies"].keys()
    assert {"local", "hf-jobs"} <= set(extras.split(","))


@pytest.mark.parametrize("target", TARGETS)
def test_state_is_in_a_volume_that_the_user_may_write(
    stages: dict[str, Stage], target: str
) -> None:
    assert values(stages[target], "VOLUME") == ['["/state"]']
    assert values(stages[target], "WORKDIR")[-1] == "/work"
    (made,) = (run for run in values(stages[target], "RUN") if "install --directory" in run)
    assert made.count("--owner unitune") == made.count("--directory") == 2
    (variables,) = (each for each in values(stages[target], "ENV") if "XDG_STATE_HOME" in each)
    paths = dict(part.split("=") for part in variables.split())
    assert paths["XDG_STATE_HOME"] == "/state"
    for name in ("XDG_CONFIG_HOME", "UNITUNE_CACHE"):
        assert paths[name].startswith("/state/"), name


@pytest.mark.parametrize("page", ["README.md", "Dockerfile"])
def test_the_documented_command_runs_a_target_with_its_folders(
    stages: dict[str, Stage], page: str
) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    (words,) = (shlex.split(line.lstrip("# ")) for line in text.splitlines() if " run --rm" in line)
    assert words[:4] == ["docker", "run", "--rm", "-it"]
    volumes = [word for flag, word in pairwise(words) if flag == "-v"]
    assert volumes == ["$PWD:/work", "unitune:/state"]
    image, *command = words[words.index(volumes[-1]) + 1 :]
    assert f"docker build --target {image.partition(':')[2]} --tag {image} ." in text
    assert image.partition(":")[2] in stages
    assert command == ["unitune", "quickstart"]


def test_a_devcontainer_installs_what_contributors_begin_with() -> None:
    """Source: https://containers.dev/implementors/json_reference/, 2026-12-01."""
    given = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert given.keys() == {"name", "image", "remoteUser", "postCreateCommand", "customizations"}
    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", given["image"])
    assert given["postCreateCommand"] in (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def docker_runs() -> bool:
    docker = shutil.which("docker")
    return docker is not None and ran([docker, "info"]).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not docker_runs(), reason="no Docker runs here")
@pytest.mark.parametrize("target", TARGETS)
def test_image_is_built_and_its_worker_starts(target: str) -> None:
    tag = f"unitune-test:{target}"
    build = ["docker", "build", "--target", target, "--tag", tag, str(ROOT)]
    subprocess.run(build, check=True, timeout=BUILD_SECONDS)
    program = "import unitune_local.remote.worker, os; print(os.getuid())"
    done = ran(["docker", "run", "--rm", tag, "python", "-c", program])
    assert (done.returncode, done.stdout.strip()) == (0, "1000"), done.stderr
