from __future__ import annotations

import os
from pathlib import Path

import pytest

from unitune_local.pip_settings import PUBLIC_INDEX, read_pip_settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path / "environment"))
    monkeypatch.setattr("unitune_local.pip_settings.SYSTEM_FILES", ())
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def environment(home: Path, **variables: str) -> dict[str, str]:
    return {"XDG_CONFIG_DIRS": str(home / "etc"), **variables}


def test_without_any_setting_the_public_index_is_asked(home: Path) -> None:
    assert (PUBLIC_INDEX,) == read_pip_settings(environment(home)).indexes


def test_stronger_files_win_over_weaker_ones_and_the_environment_over_all(home: Path) -> None:
    paths = ["etc/pip/pip.conf", ".pip/pip.conf", ".config/pip/pip.conf", "environment/pip.conf"]
    for level, path in enumerate(paths):
        write(home / path, f"[global]\nindex-url = http://level{level}/simple\n")
        assert (f"http://level{level}/simple",) == read_pip_settings(environment(home)).indexes
    write(home / "named.conf", "[global]\nindex_url = http://named/simple\n")
    named = environment(home, PIP_CONFIG_FILE=str(home / "named.conf"))
    assert ("http://named/simple",) == read_pip_settings(named).indexes
    strongest = named | {"PIP_INDEX_URL": "http://variable/simple"}
    assert ("http://variable/simple",) == read_pip_settings(strongest).indexes


def test_settings_of_a_command_win_over_global_ones(home: Path) -> None:
    text = "[install]\nindex-url = http://install\n[global]\nindex-url = http://global\n"
    write(home / ".pip/pip.conf", text)
    assert ("http://install",) == read_pip_settings(environment(home)).indexes


def test_devnull_as_config_file_hides_all_files(home: Path) -> None:
    write(home / ".pip/pip.conf", "[global]\nindex-url = http://hidden\n")
    hidden = environment(home, PIP_CONFIG_FILE=os.devnull)
    assert (PUBLIC_INDEX,) == read_pip_settings(hidden).indexes


def test_extra_indexes_come_after_the_first(home: Path) -> None:
    text = "[global]\nindex-url = http://one\nextra-index-url =\n    http://two\n    http://three\n"
    write(home / ".pip/pip.conf", text)
    expected = ("http://one", "http://two", "http://three")
    assert expected == read_pip_settings(environment(home)).indexes


def test_no_index_leaves_only_folders(home: Path) -> None:
    offline = environment(home, PIP_NO_INDEX="1", PIP_FIND_LINKS="/wheels http://page file:///x")
    settings = read_pip_settings(offline)
    assert () == settings.indexes
    assert (Path("/wheels"), Path("/x")) == settings.folders


def test_certificates_trust_and_proxy_are_read(home: Path) -> None:
    text = (
        "[global]\ncert = /ca.pem\ntrusted-host = a.example\n    b.example:8080\nproxy = http://p\n"
    )
    write(home / ".pip/pip.conf", text)
    settings = read_pip_settings(environment(home, REQUESTS_CA_BUNDLE="/other.pem"))
    assert "/ca.pem" == settings.certificates
    assert {"a.example", "b.example:8080"} == settings.trusted_hosts
    assert "http://p" == settings.proxy


def test_the_bundle_for_requests_is_used_as_pip_does(home: Path) -> None:
    bundle = environment(home, REQUESTS_CA_BUNDLE="/bundle.pem")
    assert "/bundle.pem" == read_pip_settings(bundle).certificates


def test_a_broken_file_is_left_to_pip_to_complain_about(home: Path) -> None:
    write(home / ".pip/pip.conf", "index-url without a section\n")
    assert (PUBLIC_INDEX,) == read_pip_settings(environment(home)).indexes
