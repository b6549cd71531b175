from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unitune.errors import UserError
from unitune.workspace import home as home_module
from unitune.workspace.home import artifacts, file_system, home, make_home, refuse_network

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:30 / /home rw,relatime shared:1 - nfs4 server:/home rw
24 23 254:1 / /home/me/local\\040disk rw - xfs /dev/vdb rw
25 22 0:31 / /data rw - ext4 /dev/vdc rw
26 22 0:32 / /data rw - cifs //server/data rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/x", "ext4"),  # noqa: S108 - only a name
        ("/home/me/x", "nfs4"),
        ("/homely/x", "ext4"),
        ("/home/me/local disk/x", "xfs"),
        ("/data/x", "cifs"),
    ],
)
def test_a_path_lies_on_the_deepest_and_latest_mount(path: str, kind: str) -> None:
    assert kind == file_system(Path(path), MOUNTS)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
def test_a_network_file_system_is_refused_with_a_hint_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 0:1 / {tmp_path} rw - nfs4 server:/ rw\n", encoding="utf-8")
    monkeypatch.setattr(home_module, "MOUNTS", mounts)
    with pytest.raises(UserError, match=r"nfs4.*UNITUNE_DIR"):
        make_home(tmp_path / ".unitune")
    assert not (tmp_path / ".unitune").exists()


def test_the_file_system_of_this_test_is_taken(tmp_path: Path) -> None:
    refuse_network(tmp_path)
    make_home(tmp_path / ".unitune")
    assert (tmp_path / ".unitune" / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_artifacts_are_in_the_nearest_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNITUNE_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert artifacts() == inner / ".unitune"
    (tmp_path / ".unitune").mkdir()
    assert artifacts() == tmp_path / ".unitune"
    (inner / ".unitune").mkdir()
    assert artifacts() == inner / ".unitune"
    assert home() == tmp_path / "state" / "unitune"


def test_the_environment_chooses_one_folder_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNITUNE_DIR", "elsewhere")
    assert home() == artifacts() == tmp_path / "elsewhere"
