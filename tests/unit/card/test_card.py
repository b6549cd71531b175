"""A card is read by the tools that it is for: of the Hub, Croissant, in-toto and model-signing."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.protobuf import json_format
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index
from support import sample_ledger
from support.command_line import Command
from support.sample_comparison import infested, sample_comparison
from support.trained_runs import trained, triage_job

from unitune.backends.local_capabilities import describe_export
from unitune.card.card import CARD_FILES, PROVENANCE, README, ROWS, SUMMARY, write_card
from unitune.card.facts import Base
from unitune.card.model_card import compute_of
from unitune.card.provenance import CONTEXT
from unitune.errors import Mismatch, UserError
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.history import history_folder, keep
from unitune.evaluate.documents.results import Comparison
from unitune.job.job import Data
from unitune.registry.versions import promote
from unitune.run.run import Run, find_run

SIGN = "needs the extra `sign`"
Compared = tuple[Run, Comparison]
HOSTILE = "</details>`x` **b** | [a](b) <img src=x>\n# no"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with no ledger yet, and the fake vendor's beside it."""
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / ".unitune"))
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def compared() -> Compared:
    """A run whose model, which is a folder here, was judged."""
    job = triage_job(45)
    run = trained(job)
    return run, compare(job, run)


def texts(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text("utf-8") for name in CARD_FILES}


def key_file(path: Path, key: Any, password: bytes | None = None) -> Path:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return path


def test_the_hub_reads_the_measured_results_with_their_interval(compared: Compared) -> None:
    run, comparison = compared
    folder = write_card(run).folder
    assert Path("triage-card") == folder

    card = ModelCard.load(folder / README)
    result = next(each for each in comparison.contenders if each.run == run.id)
    (read,) = card.data.eval_results
    assert ("exact", result.score, "text-generation") == (
        read.metric_type,
        read.metric_value,
        read.task_type,
    )
    low, high = (round(end, 6) for end in result.interval)
    expected = {"interval": [low, high], "level": 0.95, "n": 60, "errors": 0}
    assert expected == read.metric_args
    assert card.data.tags == ["unitune", "sft", "lora"]
    # What the Hub's own writer makes of it is what stands there.
    index = eval_results_to_model_index(card.data.model_name, card.data.eval_results)
    assert index == card.data.to_dict()["model-index"]
    assert "75.0 %" in card.text


def test_what_no_one_has_said_is_not_stated_and_not_invented(workplace: Path) -> None:
    run = trained(triage_job(45))
    done = write_card(run)
    assert {"results", "licence", "computation", "origin and licence of the rows"} <= {
        *done.not_stated
    }
    card = ModelCard.load(done.folder / README)
    assert set(card.data.to_dict()) == {"pipeline_tag", "tags"}
    assert "Not evaluated" in card.text
    assert "- **License:** not stated\n" in card.text
    written = texts(done.folder)
    assert "- Provider, contact, authorised representative: not stated\n" in written[SUMMARY]
    for folder in (str(workplace), "../"):
        assert [name for name, text in written.items() if folder in text] == []


def test_a_hosted_model_is_known_by_its_name_alone(workplace: Path) -> None:
    sample = sample_ledger.fill(workplace)
    done = write_card(find_run(sample.succeeded), "hosted")
    assert done.model_files == ()
    written = texts(done.folder)
    card = ModelCard.load(done.folder / README)
    assert "11,400 (as billed by the vendor)" in card.text
    assert card.data.base_model == "Qwen/Qwen3-8B"
    assert card.data.library_name is None
    statement = json.loads(written[PROVENANCE])
    (subject,) = statement["subject"]
    digest = hashlib.sha256(subject["name"].encode()).hexdigest()
    assert subject["digest"] == {"sha256_of_name": digest}
    # The vendor does not say that it trains adapters, so all weights count; 8B by the name.
    assert "| 6 · N · tokens: at most" in written[SUMMARY]
    assert "N = 8,000,000,000, from its name" in written[SUMMARY]


def test_names_of_the_hub_lead_there_and_can_be_loaded() -> None:
    job = triage_job(45).model_copy(update={"model": "an_owner/my_model-1.5B"})
    run = trained(job)
    assert run.tuned_model is not None
    model = Path(run.tuned_model.name)
    (model / "adapter_config.json").write_text("{}", encoding="utf-8")
    # What a job names, as a run of it would: no data set is loaded here.
    data = Data(train=("hf://an_owner/some_rows@main/train", "hf://an_owner/some_rows/test"))
    run.job = job.model_copy(update={"data": data})
    folder = write_card(run).folder
    card = ModelCard.load(folder / README)
    assert card.data.base_model == "an_owner/my_model-1.5B"
    assert (card.data.library_name, card.data.datasets) == ("peft", ["an_owner/some_rows"])
    assert 'AutoModelForCausalLM.from_pretrained("an_owner/my_model-1.5B")' in card.text
    summary = (folder / SUMMARY).read_text("utf-8")
    assert "[an_owner/some_rows](https://huggingface.co/datasets/an_owner/some_rows)" in summary
    assert "N = 1,500,000,000, from its name" in summary
    assert "2.6 Other sources of data\n\n- None named\n" in summary


def test_texts_of_others_make_no_markup(workplace: Path) -> None:
    sample = sample_ledger.fill(workplace, HOSTILE)
    made = infested(sample_comparison(), HOSTILE)
    contenders = tuple(
        each.model_copy(update={"run": sample.succeeded if "tuned" in each.name else None})
        for each in made.contenders
    )
    keep(made.model_copy(update={"contenders": contenders}))
    done = write_card(find_run(sample.succeeded), "hostile")
    card = ModelCard.load(done.folder / README)
    assert f"json_equal{HOSTILE}" in {each.metric_type for each in card.data.eval_results}
    outside = re.sub("`[^`\n]*`", "", card.text.replace("```", ""))
    assert not re.search(r"<img|</details>|\[a\]\(b\)|\*\*b\*\*|^# no", outside, re.MULTILINE)


@pytest.mark.parametrize(
    ("parameters", "tokens_read", "flop", "third"),
    [
        # LoRA on 10 million tokens, of an 8 B model (15 T tokens) and of SmolLM2-135M (2 T tokens).
        ("meta-llama/Llama-3.1-8B", 8_000_000_000, 3.2e17, 2.4e23),
        ("HuggingFaceTB/SmolLM2-135M", 135_000_000, 5.4e15, 5.4e20),
    ],
)
def test_computation_is_four_operations_a_parameter_and_token_of_an_adapter(
    parameters: str, tokens_read: int, flop: float, third: float
) -> None:
    base = Base(parameters, parameters, None, tokens_read, "counted")
    made = compute_of(base, "sft", 10_000_000, trains_adapter=True)
    assert flop == pytest.approx(made.flop)
    assert third == pytest.approx(made.threshold_flop)
    assert flop / (3 * third) == pytest.approx(made.share)


def test_computation_of_an_unknown_base_is_held_against_the_fallback() -> None:
    base = Base("mine", None, None, 10**9, "counted")
    made = compute_of(base, "dpo", 10**6, trains_adapter=False)
    assert made.flop == (6 + 2) * 1e15
    assert pytest.approx(made.threshold_flop) == 1e23 / 3
    assert compute_of(base, "sft", None, trains_adapter=True).share is None


ROW_KINDS = {
    "sft": {"messages": [{"role": "user", "content": "{}"}, {"role": "assistant", "content": "y"}]},
    "dpo": {
        "input": {"messages": [{"role": "user", "content": "{}"}]},
        "preferred_output": [{"role": "assistant", "content": "good"}],
        "non_preferred_output": [{"role": "assistant", "content": "bad"}],
        "topic": "parcels",
        "tags": ["a"],
    },
}


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
@pytest.mark.parametrize("method", ROW_KINDS)
def test_croissant_readers_read_the_rows_by_it(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    import mlcroissant  # noqa: PLC0415 - takes seconds

    run = trained(triage_job(45))
    lines = [json.dumps(ROW_KINDS[method]).replace("{}", f"question {at}") for at in range(40)]
    (run.folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    folder = write_card(run).folder
    for file in run.folder.glob("*.jsonl"):
        (folder / file.name).write_bytes(file.read_bytes())
    with caplog.at_level(logging.WARNING, "absl"):
        dataset = mlcroissant.Dataset(jsonld=folder / ROWS)
    assert [each for each in caplog.messages if "context" in each] == []
    records = list(dataset.records("train"))
    kept = [json.loads(line) for line in (run.folder / "train.jsonl").read_text().splitlines()]
    for key in {"messages", "preferred_output", "non_preferred_output"} & kept[0].keys():
        expected = [[turn["content"].encode() for turn in row[key]] for row in kept]
        assert expected == [contents(each, f"train/{key}") for each in records]
    if method == "dpo":
        expected = [[row["input"]["messages"][0]["content"].encode()] for row in kept]
        assert expected == [contents(each, "train/input") for each in records]
        assert {each["train/topic"] for each in records} == {b"parcels"}


def contents(record: dict[str, Any], field: str) -> list[bytes]:
    value = record[field][f"{field}/content"]
    return value if isinstance(value, list) else [value]


def test_croissants_terms_are_those_of_its_reader() -> None:
    from mlcroissant._src.core.context import Context, CroissantVersion  # noqa: PLC0415
    from mlcroissant._src.core.rdf import make_context  # noqa: PLC0415

    theirs = make_context(Context(conforms_to=CroissantVersion.V_1_1))
    assert theirs == {key: value for key, value in CONTEXT.items() if key != "prov"}


def test_provenance_is_an_in_toto_statement_with_slsas_predicate(compared: Compared) -> None:
    statements = pytest.importorskip("in_toto_attestation.v1.statement", reason=SIGN)
    own = pytest.importorskip("in_toto_attestation.v1.statement_pb2", reason=SIGN)
    slsa = pytest.importorskip(
        "in_toto_attestation.predicates.provenance.v1.provenance_pb2", reason=SIGN
    )
    run, _ = compared
    folder = write_card(run).folder
    text = (folder / PROVENANCE).read_text("utf-8")
    # Both refuse a field that the published protobuf schemas do not have.
    read = json_format.Parse(text, own.Statement())
    statements.Statement.copy_from_pb(read).validate()
    assert read.predicate_type == "https://slsa.dev/provenance/v1"
    predicate = json_format.ParseDict(json.loads(text)["predicate"], slsa.Provenance())
    assert run.launch_key == predicate.run_details.metadata.invocation_id
    assert predicate.run_details.builder.version["unitune models card"]

    assert run.tuned_model is not None
    model = Path(run.tuned_model.name)
    names = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    assert names == {each.name for each in read.subject}
    rows = run.folder / "train.jsonl"
    by_name = {each.name: each for each in predicate.build_definition.resolved_dependencies}
    assert sha256(rows) == by_name["train.jsonl"].digest["sha256"]
    written = {each.name: each.digest["sha256"] for each in predicate.run_details.byproducts}
    for name in (README, SUMMARY, ROWS):
        assert sha256(folder / name) == written[name]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def exported(compared: Compared, workplace: Path) -> Path:
    """An export's folder, as backends write it."""
    folder, model = workplace / "out", compared[0].tuned_model
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "model.gguf").write_bytes(b"weights")
    assert model is not None
    describe_export(folder, model, "gguf", "Q8_0")
    return folder


def test_the_verifier_of_model_signing_finds_a_changed_byte(
    compared: Compared, exported: Path, workplace: Path
) -> None:
    verifying = pytest.importorskip("model_signing.verifying", reason=SIGN)
    key = ec.generate_private_key(ec.SECP256R1())
    public = workplace / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    done = write_card(compared[0], exported, sign_key=key_file(workplace / "key.pem", key))

    def verify() -> None:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public)
        config.verify(exported, exported / str(done.signature))

    verify()
    for name in (README, "sub/model.gguf"):
        content = (exported / name).read_bytes()
        (exported / name).write_bytes(content[:-1] + b"X")
        with pytest.raises(ValueError, match="mismatch"):
            verify()
        (exported / name).write_bytes(content)
    (exported / "more").touch()
    with pytest.raises(ValueError, match="mismatch"):
        verify()
    (exported / "more").unlink()

    with pytest.raises(UserError, match=r"model\.sig signs the current files"):
        write_card(compared[0], exported)
    write_card(compared[0], exported, sign_key=workplace / "key.pem")
    verify()


def test_a_key_that_cannot_sign_is_refused_before_anything_is_written(
    compared: Compared, workplace: Path
) -> None:
    pytest.importorskip("model_signing.signing", reason=SIGN)
    curve = ec.generate_private_key(ec.SECP256R1())
    keys = [
        key_file(workplace / "rsa.pem", rsa.generate_private_key(65537, 2048)),
        key_file(workplace / "locked.pem", curve, b"secret"),
        key_file(workplace / "other.pem", ec.generate_private_key(ec.SECP256K1())),
        workplace / "train.jsonl",
    ]
    for key in keys:
        with pytest.raises(UserError, match=f"{key.name} cannot sign: it is not a PEM private key"):
            write_card(compared[0], "new", sign_key=key)
    with pytest.raises(FileNotFoundError):
        write_card(compared[0], "new", sign_key=workplace / "nowhere.pem")
    assert not Path("new").exists()


def test_in_an_exports_folder_the_card_is_of_its_files(compared: Compared, exported: Path) -> None:
    done = write_card(compared[0], exported)
    assert done.model_files == ("sub/model.gguf", "unitune.json")
    assert ModelCard.load(exported / README).data.library_name == "gguf"
    assert done == write_card(compared[0], exported)  # the card's own files are none of the model


def test_an_export_of_another_training_is_refused(compared: Compared, exported: Path) -> None:
    about = json.loads((exported / "unitune.json").read_text())
    (exported / "unitune.json").write_text(json.dumps(about | {"data_fingerprint": "0" * 64}))
    with pytest.raises(Mismatch, match="the export of another training, not of run"):
        write_card(compared[0], exported)
    (exported / "unitune.json").unlink()
    with pytest.raises(UserError, match="is not an export of a run"):
        write_card(compared[0], exported)


def test_what_a_person_has_changed_is_not_overwritten(compared: Compared) -> None:
    folder = write_card(compared[0], "card").folder
    write_card(compared[0], folder)
    before = (folder / README).read_text()
    (folder / README).write_text(before.replace("not stated", "me", 1))
    with pytest.raises(UserError, match=r"card/README\.md was edited or not written by"):
        write_card(compared[0], folder)
    (folder / README).write_text(before)
    (folder / PROVENANCE).write_text("{}")
    with pytest.raises(UserError, match="was edited or not written by"):
        write_card(compared[0], folder)


def test_changed_results_and_results_of_another_model_are_refused(compared: Compared) -> None:
    run, comparison = compared
    assert comparison.id is not None
    verdict = history_folder(comparison.id) / "verdict.json"
    before = verdict.read_text("utf-8")
    verdict.write_text(before.replace('"score": 0.75', '"score": 0.95'), encoding="utf-8")
    assert before != verdict.read_text("utf-8")
    with pytest.raises(Mismatch, match=r"verdict\.json was changed since the comparison"):
        write_card(run)
    verdict.write_text(before, encoding="utf-8")
    write_card(run)
    assert run.tuned_model is not None
    (Path(run.tuned_model.name) / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(Mismatch, match="is not the one in comparison"):
        write_card(run)


def test_a_comparison_whose_files_are_not_here_is_told_of(compared: Compared) -> None:
    run, comparison = compared
    assert comparison.id is not None
    shutil.rmtree(history_folder(comparison.id))
    done = write_card(run)
    text = ModelCard.load(done.folder / README).text
    assert f"On record: compared ({comparison.id}): better, no gate. The results" in text
    assert "Not evaluated" not in text
    assert "results" in done.not_stated


def test_the_command_says_what_was_written_and_what_to_add(unitune: Command) -> None:
    run = trained(triage_job(45))
    promote(run, "production", without_gate="the first")
    shown = unitune("models", "card", "triage@production", "-o", "out")
    assert shown.code == 0
    assert "- **Version:** `triage:1`\n" in Path("out", README).read_text("utf-8")
    assert "- Model: `triage:1`, run" in Path("out", SUMMARY).read_text("utf-8")
    assert "model card, no results: not compared" in shown.out
    assert "not stated" in shown.out
    assert unitune("models", "card", run.id, "-o", "out", "--quiet").out == "out\n"
    told = json.loads(unitune("models", "card", run.id, "-o", "out", "--json").out)
    assert (1, "out", list(CARD_FILES)) == (told["schema_version"], told["folder"], told["files"])
    refused = unitune("models", "card", run.id, "-o", ".")
    assert refused.code == 2
    assert "is not an export of a run" in refused.err
