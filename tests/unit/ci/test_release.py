"""A release: its version in one place, its files as built, and what an installed wheel can do."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command_line import ran

import unitune

ROOT = Path(__file__).parents[3]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = ("unitune", "unitune_providers", "unitune_local")
RELEASE = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))


def build(source: Path, target: Path, *options: str) -> None:
    pytest.importorskip("hatchling", reason="needs the extra `dev`")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target), *options]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and a source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"unitune-{unitune.__version__}-py3-none-any.whl"


def content_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata_of(wheel: Path) -> Message:
    (content,) = (
        content for name, content in content_of(wheel).items() if name.endswith("/METADATA")
    )
    return email.message_from_bytes(content)


def test_the_version_is_in_one_place(wheel: Path) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    dated = re.findall(r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert "version" not in PROJECT["project"]
    assert metadata_of(wheel)["Version"] == unitune.__version__
    assert dated[0] == (citation["version"], str(citation["date-released"]))
    assert dated[0][0] == unitune.__version__


def test_both_files_pass_the_checks_of_the_index(built: Path) -> None:
    pytest.importorskip("twine", reason="needs the extra `dev`")
    files = sorted(built.iterdir())
    assert [file.suffix for file in files] == [".whl", ".gz"]
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
    done = ran(command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_on_the_index_has_authors_and_addresses(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    names = {url.partition(",")[0] for url in metadata.get_all("Project-URL", [])}
    assert names == {"Changelog", "Documentation", "Issues", "Repository", "Security"}
    assert metadata["Author"] == "The unitune authors"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert len(metadata.get_all("License-File", [])) == 3


def test_a_wheel_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    listed = ran(["git", "ls-files", *packages], cwd=ROOT).stdout.split()
    if not listed:
        pytest.skip("no git repository here")
    tracked = {path.removeprefix("providers/").removeprefix("local/") for path in listed}
    example = {f"unitune/{path}" for path in map(str, examples())}
    contained = {name for name in content_of(wheel) if ".dist-info/" not in name}
    assert contained == tracked | example


def examples() -> list[Path]:
    folder = ROOT / "examples" / "bank-intents"
    return [file.relative_to(ROOT) for file in folder.iterdir()]


def test_the_source_distribution_builds_the_same_wheel(
    built: Path, wheel: Path, tmp_path: Path
) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(tmp_path, filter="data")
    build(tmp_path / f"unitune-{unitune.__version__}", tmp_path / "again", "-t", "wheel")
    assert content_of(tmp_path / "again" / wheel.name) == content_of(wheel)


@pytest.mark.parametrize(
    ("tag", "owner", "newest", "message"),
    [
        (f"v{unitune.__version__}", "someone", unitune.__version__, ""),
        ("v9.9.9", "someone", unitune.__version__, "The tag is v9.9.9"),
        (f"v{unitune.__version__}", "OWNER", unitune.__version__, "Replace OWNER"),
        (f"v{unitune.__version__}", "someone", "Unreleased", "has no dated section"),
    ],
)
def test_a_release_is_refused_whose_files_do_not_agree(
    tmp_path: Path, tag: str, owner: str, newest: str, message: str
) -> None:
    """Run the step of release.yml that compares tag, version and changelog."""
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        text = (ROOT / name).read_text("utf-8").replace("OWNER", owner)
        text = text.replace(f"## [{unitune.__version__}]", f"## [{newest}]")
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "unitune").mkdir()
    shutil.copy(ROOT / "unitune" / "_version.py", tmp_path / "unitune")
    (step,) = (s for s in RELEASE["jobs"]["build"]["steps"] if "Compare" in s.get("name", ""))
    (tmp_path / "hatchling").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hatchling "$@"\n')
    (tmp_path / "hatchling").chmod(0o700)
    environment = os.environ | {"TAG": tag, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    step_command = ["bash", "-euo", "pipefail", "-c", step["run"]]
    done = ran(step_command, cwd=tmp_path, env=environment)
    assert (done.returncode == 0) == (not message), done.stdout + done.stderr
    assert message in done.stderr


def test_only_the_publishing_job_may_ask_the_index_for_a_token() -> None:
    jobs = RELEASE["jobs"]
    assert RELEASE["permissions"] == {"contents": "read"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert [job["needs"] for name, job in jobs.items() if name != "check"] == [
        "check",
        "build",
        "publish",
    ]
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text("utf-8")


def test_the_site_is_published_with_the_theme_of_the_extra_dev() -> None:
    workflow = (ROOT / ".github/workflows/docs.yml").read_text("utf-8")
    (theme,) = re.findall(r'pip install "(mkdocs-material.*?)"', workflow)
    assert theme in PROJECT["project"]["optional-dependencies"]["dev"]


def environment_with(folder: Path, *install: str) -> Path:
    """Create a virtual environment and return the path of its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *install], check=True)
    return python


def run(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `unitune` of an environment in an empty folder, without this repository."""
    kept = {"HOME", "PATH", "UNITUNE_CACHE", "TMPDIR", "LANG", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name in kept}
    environment["UNITUNE_DIR"] = str(folder / "state")
    done = ran([python.parent / "unitune", *words], cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_a_wheel_works_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """Its declared dependencies, from the package index, suffice for a plan."""
    python = environment_with(tmp_path / "venv", str(wheel))
    shutil.copy(ROOT / "docs" / "tutorial" / "messages.csv", tmp_path)
    assert run(python, tmp_path, "--version").stdout == f"unitune {unitune.__version__}\n"
    run(python, tmp_path, "init", "--data", "messages.csv")
    run(python, tmp_path, "check")
    planned = json.loads(run(python, tmp_path, "plan", "--all", "--json").stdout)
    assert "together" in json.dumps(planned)


@pytest.mark.nightly
def test_the_quickstart_of_a_wheel_is_better(
    wheel: Path, tmp_path: Path, default_model: object
) -> None:
    """Dependencies are those of these tests; unitune is the wheel's own."""
    del default_model  # which must be stored before a process without network access needs it
    python = environment_with(tmp_path / "venv", "--no-deps", str(wheel))
    site = sysconfig.get_paths(vars={"base": str(python.parents[1])})["purelib"]
    others = [path for path in sys.path if path.endswith("site-packages")]
    (Path(site) / "dependencies.pth").write_text("\n".join(others) + "\n")
    shown = run(python, tmp_path, "quickstart", "--json").stdout
    assert json.loads(shown)["verdict"] == "better"
