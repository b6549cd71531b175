"""A training at a vendor of steps has the local trainer's losses, where the vendor computes them
with the same model."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("tinker", reason="needs the extra `tinker`")

from pydantic import JsonValue
from support.tiny_model import write_pairs, write_rows
from vendors.step_compute import Real, seed_of_place
from vendors.step_places import AZURE, TINKER, StepPlace

from unitune.backends import registry
from unitune.backends.protocol import Launch
from unitune.job.job import Data, Job, Method, Preference, Reward, Tuning
from unitune.scorers.text import Regex
from unitune.testing.contract_base import sha256_of
from unitune_local.job_folder import EventLog, JobFolder, read_events
from unitune_local.models import store
from unitune_local.objectives import rollout
from unitune_local.steps import run as steps_run
from unitune_local.training import run as local_run

# The SDK keeps its connections for the life of the process.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

EMBEDDED = "smollm2-135m-instruct"
# By a run here, the largest difference of any figure was below 2e-6
CLOSE = 1e-4
LOCAL = {"dtype": "float32", "threads": 1, "checkpoint_every_steps": 1000}
TUNINGS: dict[str, Tuning] = {
    "sft": Tuning(epochs=2, batch_size=4),
    "dpo": Tuning(epochs=2, batch_size=4),
    "ipo": Tuning(epochs=1, batch_size=4, preference=Preference(loss="ipo")),
    "orpo": Tuning(epochs=1, batch_size=4, preference=Preference(loss="orpo")),
    "rft": Tuning(
        epochs=1,
        batch_size=4,
        learning_rate=1e-3,
        reward=Reward(scorers=(Regex(pattern="[a-m]"),), group_size=4, max_tokens=6),
    ),
    "ppo": Tuning(
        max_steps=2,
        batch_size=4,
        learning_rate=1e-3,
        reward=Reward(
            scorers=(Regex(pattern="[a-m]"),), group_size=4, max_tokens=4, updates=2, loss="grpo"
        ),
    ),
}
METHODS: dict[str, Method] = {"ipo": "dpo", "orpo": "dpo", "ppo": "rft"}
# Which about half of the sampled answers have, of the embedded model and of a tiny one
PATTERNS = {EMBEDDED: "^[A-M]"}
Figures = list[tuple[str, dict[str, JsonValue]]]
Compare = Callable[[StepPlace, str, str], tuple[Figures, Figures]]


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Collect the SDK's connections while their warnings are ignored."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch  # noqa: PLC0415

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def launch_of(base: str, backend: str, way: str, folder: Path) -> Launch:
    method = METHODS.get(way, way)
    write = write_pairs if method == "dpo" else write_rows
    folder.mkdir()
    files = [write(folder / "train.jsonl", 10), write(folder / "dev.jsonl", 3)]
    options: dict[str, dict[str, JsonValue]] = {"local": {**LOCAL}}
    tuning = TUNINGS[way]
    if method == "rft" and base in PATTERNS:
        scorers = (Regex(pattern=PATTERNS[base]),)
        reward = tuning.reward.model_copy(update={"scorers": scorers})
        tuning = tuning.model_copy(update={"reward": reward})
    job = Job(
        name="losses",
        model=base,
        backend=backend,
        method=method,  # type: ignore[arg-type]
        data=Data(train="train.jsonl"),
        tuning=tuning,
        options=options,
        folder=folder,
    )
    uploads = [registry.backend(backend).upload(each, sha256_of(each)) for each in files]
    return Launch("run-1", job, uploads[0], uploads[1], folder)


def figures_of(folder: JobFolder) -> Figures:
    events = read_events(folder.events, "").events
    return [(each.key, each.data) for each in events if each.kind in ("step", "validation")]


def locally(base: str, way: str, folder: Path, *, clips: bool) -> Figures:
    there = JobFolder(folder / "local")
    launch = launch_of(base, "local", way, there.path)
    if not clips:
        tuning = launch.job.tuning.model_copy(update={"max_grad_norm": 1e9})
        launch = replace(launch, job=launch.job.model_copy(update={"tuning": tuning}))
    there.spec.write_text(local_run.prepare(launch).model_dump_json())
    assert local_run.run_training(there, EventLog(there.events)) is not None
    return figures_of(there)


def at_vendor(name: str, base: str, way: str, folder: Path) -> Figures:
    there = JobFolder(folder / name)
    launch = launch_of(base, name, way, there.path)
    backend = registry.backend(name)
    there.spec.write_text(backend.specify(launch))  # type: ignore[attr-defined]
    result = steps_run.run_training(there, EventLog(there.events))
    assert result is not None
    assert result.state == "succeeded"
    return figures_of(there)


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    def compare(place: StepPlace, base: str, way: str) -> tuple[Figures, Figures]:
        drawn = rollout.seed_of

        def as_at_the_vendor(*places: int) -> int:
            seed = drawn(*places[:3], 0) % 2**31
            return seed_of_place(seed, places[3])

        with monkeypatch.context() as patch:
            patch.setattr(rollout, "seed_of", as_at_the_vendor)
            ours = locally(base, way, tmp_path, clips=place is TINKER)
        vendor = place.vendor(
            models={base: 8192},
            compute=lambda name, rank, seed: Real(store.resolve(name), rank, seed),
        )
        with place.served(vendor):
            theirs = at_vendor(place.name, base, way, tmp_path)
        assert {each.ended for each in vendor.sessions.values()} <= {"success", True}
        return ours, theirs

    return compare


def largest_difference(ours: Figures, theirs: Figures) -> float:
    """Return the largest difference of any figure that both have; the others are named here."""
    here = {"entropy", "grad_norm", "tokens_per_second", "seconds_left"}
    assert [key for key, _ in ours] == [key for key, _ in theirs]
    differences = [0.0]
    for (_, own), (_, other) in zip(ours, theirs, strict=True):
        assert own.keys() - here <= other.keys()
        # Before the first step, gains are rounding at a vendor, and accuracy is their sign.
        tied = {"accuracy"} if abs(float(own.get("margin", 1.0))) < 1e-6 else set[str]()  # type: ignore[arg-type]
        differences += [
            abs(float(own[name]) - float(other[name]))  # type: ignore[arg-type]
            for name in own.keys() - here - tied
        ]
    assert all(map(math.isfinite, differences))
    norms = [float(own.get("grad_norm", 0.0)) for _, own in ours]  # type: ignore[arg-type]
    assert max(norms) > 0, "nothing was learnt"
    return max(differences)


# Azure does not clip gradients, and does not publish how it averages ppo.
CASES = [(TINKER, way) for way in TUNINGS] + [(AZURE, way) for way in TUNINGS if way != "ppo"]


@pytest.mark.parametrize(("place", "way"), CASES, ids=str)
def test_losses_are_the_local_trainers(
    tiny_model: Path, compared: Compare, place: StepPlace, way: str
) -> None:
    ours, theirs = compared(place, str(tiny_model), way)
    assert len(ours) > 2
    assert largest_difference(ours, theirs) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sft", "dpo", "rft"])
@pytest.mark.parametrize("place", [TINKER, AZURE], ids=str)
def test_losses_of_the_embedded_model_are_the_local_trainers(
    compared: Compare, place: StepPlace, way: str
) -> None:
    ours, theirs = compared(place, EMBEDDED, way)
    assert len(ours) > 2
    assert largest_difference(ours, theirs) < CLOSE
