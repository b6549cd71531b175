"""`push`: one commit with model and card, on a hub on loopback, through the hub's own client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import Command
from support.trained_runs import trained, triage_job
from vendors.hub import ACCOUNT, KEY, HubVendor

from unitune.backends.local_capabilities import Exported, ExportForm, describe_export
from unitune.errors import BackendError, Mismatch, Unreachable, UserError
from unitune.publish import push
from unitune.registry.versions import register
from unitune.run.run import Run
from unitune.testing.loopback import Fault, Server, serve
from unitune.workspace.home import home

pytest.importorskip("huggingface_hub", reason="needs the extra `hub`")
pytestmark = pytest.mark.filterwarnings(  # how huggingface_hub 2.4 sends content with httpx2
    "ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"
)
WEIGHTS = "adapter_model.safetensors"
HERE = "/home/ana/models/base"
BATCH, COMMIT = r"/lfs/objects/batch$", r"/commit/main$"


@pytest.fixture
def hub() -> HubVendor:
    return HubVendor()


@pytest.fixture(autouse=True)
def server(hub: HubVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / ".unitune"))
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # for loopback alone
    # Xet is the protocol of a program of the hub's own, which falls back to Git LFS without it.
    monkeypatch.setattr("huggingface_hub._commit_api.is_xet_available", lambda: False)
    monkeypatch.setattr("huggingface_hub.utils._http._DEFAULT_RETRY_ON_STATUS_CODES", ())
    with serve(hub) as served:
        hub.url = served.url
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


@pytest.fixture
def run(server: Server) -> Run:
    assert server.url
    return trained(triage_job(40))


@pytest.fixture
def export(run: Run) -> Path:
    return exported(run, Path("triage-adapter"))


def exported(run: Run, folder: Path) -> Path:
    """Write a folder as an adapter's export is: it names folders of this machine in two files."""
    assert run.tuned_model is not None
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"weights of " + run.id.encode())
    config = {"peft_type": "LORA", "base_model_name_or_path": HERE}
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    describe_export(folder, run.tuned_model, "adapter")
    about = json.loads((folder / "unitune.json").read_text("utf-8"))
    (folder / "unitune.json").write_text(json.dumps({**about, "base_path": HERE}), "utf-8")
    return folder


def test_model_and_card_are_one_commit_in_a_private_repository(
    hub: HubVendor, run: Run, export: Path
) -> None:
    version = register(run)
    done = push(run, folder=export)
    repository = hub.repositories[f"{ACCOUNT}/triage"]
    assert (True, True, done.commit) == (done.is_new, repository.private, repository.head)
    assert len(repository.commits) == 2, "the hub's own, and ours"
    assert repository.tags == {"v1": done.commit}
    assert done.tag == f"v{version.number}"
    assert repository.files.keys() == {
        *("README.md", "croissant.json", "provenance.intoto.json", "training-summary.md"),
        *(WEIGHTS, "adapter_config.json", "unitune.json", ".gitattributes"),
    }
    assert (export / WEIGHTS).read_bytes() == hub.content(done.repository, WEIGHTS)
    assert b"triage" in hub.content(done.repository, "README.md")
    (event,) = (each for each in run.events() if each.key.startswith("run.pushed"))
    assert (
        (event.data["text"])
        == f"pushed to {hub.url}/{ACCOUNT}/triage (private), commit {done.commit[:8]}"
    )


def test_no_folder_of_this_machine_is_published(hub: HubVendor, run: Run, export: Path) -> None:
    """The export keeps them: peft needs them here."""
    done = push(run, folder=export)
    for path in hub.repositories[done.repository].files:
        assert HERE.encode() not in hub.content(done.repository, path), path
    config = json.loads(hub.content(done.repository, "adapter_config.json"))
    assert config == {"peft_type": "LORA", "base_model_name_or_path": "base"}
    assert HERE in (export / "adapter_config.json").read_text("utf-8")
    provenance = hub.content(done.repository, "provenance.intoto.json").decode()
    assert WEIGHTS in provenance


def test_files_that_the_export_did_not_write_are_left_out_and_named(
    hub: HubVendor, run: Run, export: Path
) -> None:
    (export / ".git").mkdir()
    for name in (".env", ".git/config", "train.jsonl"):
        (export / name).write_text("SECRET", "utf-8")
    done = push(run, folder=export)
    assert not {".env", ".git/config", "train.jsonl"} & done.files.keys()
    assert any(".env, .git/config, train.jsonl" in note for note in done.notes)
    shutil.rmtree(export / ".git")  # which the hub refuses
    again = push(run, folder=export, all_files=True)
    assert hub.content(again.repository, "train.jsonl") == b"SECRET"


def test_a_script_of_the_export_names_the_base_by_its_public_name(
    hub: HubVendor, run: Run, export: Path
) -> None:
    (export / "start.sh").write_text(f"base={HERE}\n", "utf-8")
    assert run.tuned_model is not None
    describe_export(export, run.tuned_model, "adapter")
    done = push(run, folder=export)
    assert hub.content(done.repository, "start.sh") == b"base=base\n"
    assert (export / "start.sh").read_text("utf-8") == f"base={HERE}\n", "the export keeps it"


def test_the_same_files_make_no_second_commit(
    hub: HubVendor, server: Server, run: Run, export: Path
) -> None:
    first, second = push(run, "acme/triage", folder=export), push(run, "acme/triage", folder=export)
    assert (first.commit, False) == (second.commit, second.is_new)
    assert len(server.received("POST", COMMIT)) == 1
    assert len([each for each in run.events() if each.key.startswith("run.pushed")]) == 1
    (export / WEIGHTS).write_bytes(b"others")
    assert push(run, "acme/triage", folder=export).is_new
    assert hub.content("acme/triage", WEIGHTS) == b"others"


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.CUT])
def test_what_was_interrupted_goes_on(
    hub: HubVendor, server: Server, run: Run, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Without a second export, and without sending again what large files hold."""
    exports: list[ExportForm] = []

    def export(run: Run, form: ExportForm, folder: Path) -> Exported:
        exports.append(form)
        exported(run, folder)
        return Exported(
            form=form, folder=folder, files={}, seconds=0, program="peft", rows=20, equal=20
        )

    monkeypatch.setattr(Run, "export", export)
    server.inject_fault(fault, "POST", COMMIT)
    with pytest.raises(BackendError, match=r"Push again|refused the request"):
        push(run)
    done = push(run)
    assert exports == ["adapter"]
    assert len(server.received("PUT", "")) == 1
    assert done.commit == hub.repositories[done.repository].head
    assert len(hub.repositories[done.repository].commits) == 2
    assert not (home() / "pushes" / run.id).exists()


def test_what_others_see_is_not_written_to_by_mistake(
    hub: HubVendor, run: Run, export: Path
) -> None:
    push(run, "acme/open", folder=export, public=True)
    assert not hub.repositories["acme/open"].private
    with pytest.raises(UserError, match=r"is public .*Push with --public"):
        push(run, "acme/open", folder=export)
    push(run, "acme/closed", folder=export)
    with pytest.raises(UserError, match=r"is private .*Push without --public"):
        push(run, "acme/closed", folder=export, public=True)


def test_a_card_that_a_person_has_written_on_is_what_is_published(
    hub: HubVendor, run: Run, export: Path
) -> None:
    (export / "README.md").write_text("---\nlicense: mit\n---\nMine.\n", "utf-8")
    done = push(run, folder=export)
    assert b"Mine." in hub.content(done.repository, "README.md")
    assert any("README.md was edited and is kept" in note for note in done.notes)


def test_what_is_not_known_of_licences_is_told(run: Run, export: Path) -> None:
    notes = " ".join(push(run, folder=export).notes)
    assert "the licence of base is unknown" in notes
    assert "the licence of the training rows is unknown" in notes


def test_a_folder_that_is_no_export_of_the_run_is_refused(
    server: Server, run: Run, export: Path
) -> None:
    shutil.copytree(export, "other")
    about = json.loads(Path("other/unitune.json").read_text("utf-8"))
    Path("other/unitune.json").write_text(json.dumps({**about, "base": "another"}), "utf-8")
    with pytest.raises(Mismatch, match="another training"):
        push(run, folder="other")
    Path("other/secret").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="other/secret is a link"):
        push(run, folder="other")
    Path("other/secret").unlink()
    Path("other/unitune.json").unlink()
    with pytest.raises(UserError, match="not an export of a run"):
        push(run, folder="other")
    assert server.received("PUT", "") == []


def test_without_the_right_to_write_nothing_is_sent(
    server: Server, run: Run, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match="does not let this token write to others/triage"):
        push(run, "others/triage", folder=export)
    with pytest.raises(UserError, match="is not a valid repository name"):
        push(run, "a/b/c", folder=export)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(BackendError, match="does not let this token") as error:
        push(run, "acme/triage", folder=export)
    assert "hf_wrong" not in str(error.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="hf auth login"):
        push(run, folder=export)
    assert server.received("PUT", "") == []


def test_a_hub_that_is_away_is_told(
    run: Run, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match="Push again"):
        push(run, "acme/triage", folder=export)


def test_the_command_says_what_is_there_now(unitune: Command, run: Run, export: Path) -> None:
    to = ("--to", "hub", "--repo", "acme/triage", "--folder", str(export))
    done = unitune("models", "push", run.id, *to)
    assert done.code == 0
    assert "acme/triage  private" in done.out
    again = unitune("models", "push", run.id, *to)
    assert "unchanged: the same files are already there" in again.out
    (line,) = (
        line for line in unitune("runs", "show", run.id).out.splitlines() if "Pushed" in line
    )
    assert "/acme/triage (private), commit " in line
    assert KEY not in done.out + done.err + again.out
