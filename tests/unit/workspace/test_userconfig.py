"""The user's own configuration: where it lies, how strictly it is read, what is written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from unitune.errors import UserError
from unitune.files import filesystem
from unitune.workspace import user_config
from unitune.workspace.user_config import UserConfig


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/unitune/config.yaml"


def test_without_a_file_nothing_is_configured() -> None:
    assert UserConfig() == user_config.read()


def test_a_relative_folder_is_passed_over_as_the_specification_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XDG Base Directory Specification 0.8: it would be a folder of the current one."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for named in ("", "config", "./config"):
        monkeypatch.setenv("XDG_CONFIG_HOME", named)
        assert tmp_path / "me/.config/unitune" == user_config.folder()


def test_what_is_written_is_read_again_and_private(config: Path) -> None:
    wanted = UserConfig(keys={"https://llm.example.com": ("LLM_API_KEY", "OTHER")})
    assert config == user_config.write(wanted)
    assert wanted == user_config.read()
    assert config.stat().st_mode & 0o077 == 0


def test_a_file_that_a_clone_brought_is_not_the_users_word(config: Path) -> None:
    """Some notebooks and build services clone a repository into the home folder."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("needs git")
    user_config.write(UserConfig(keys={"https://llm.example.com": ("LLM_API_KEY",)}))
    home = config.parents[2]
    subprocess.run([git, "init", "-q"], cwd=home, check=True)
    user_config.read()
    subprocess.run([git, "add", "-f", str(config)], cwd=home, check=True)
    config.unlink()
    subprocess.run([git, "checkout", "--", "."], cwd=home, check=True)
    with pytest.raises(UserError, match="in a git repository, so a clone or a pull may have"):
        user_config.read()
    config.chmod(0o600)
    assert user_config.read().keys


def test_a_file_of_another_user_is_not_the_users_word(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_config.write(UserConfig())
    monkeypatch.setattr(filesystem.os, "geteuid", lambda: config.stat().st_uid + 1)
    monkeypatch.setattr(filesystem, "ROOT", -1)
    with pytest.raises(UserError, match="belongs to another user"):
        user_config.read()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("keys:\n  https://example.com/v1: [A]\n", 2, "as https://example.com"),
        ("keys:\n  https://EXAMPLE.com: [A]\n", 2, "as https://example.com"),
        ("keys:\n  https://example.com: [a-b]\n", 2, "name of an environment variable"),
        ("keys:\n  https://example.com: A\n", 2, "must be a list: [A]"),
        ("\nkey: {}\n", 2, "Did you mean 'keys'? Known: keys, gateways, key_commands, notify."),
        ("keys: [\n", 2, "not valid YAML"),
        ("- keys\n", 1, "the user's configuration must be a mapping"),
    ],
)
def test_a_bad_file_is_an_error_with_file_line_and_what_is_allowed(
    config: Path, text: str, line: int, words: str
) -> None:
    config.parent.mkdir(parents=True)
    config.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        user_config.read()
    said = str(refused.value)
    assert f"{config}:{line}: " in said
    assert words in said
