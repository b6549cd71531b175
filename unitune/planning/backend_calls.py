"""Ask a job's backend for forecasts and option checks and, on request, a price or token counts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from unitune.backends import registry
from unitune.backends.capabilities import CountsTokens, Quotes, ValidatesOptions
from unitune.backends.forecasts import Calibrates, Forecast, Forecasts
from unitune.backends.formats import wire_text
from unitune.backends.protocol import Launch, Upload
from unitune.cost.tokens import VendorCounter, counter_for
from unitune.cost.tokens.by_vendor import SAMPLE_ROWS
from unitune.data.dataset import spread
from unitune.errors import JobError, MissingExtra, Unsupported
from unitune.findings import Finding, error, note, of_runs
from unitune.job.job import Job
from unitune.planning.feasibility import FOR_TESTS
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.planning.rows import Rows
from unitune.text import listed
from unitune.workspace.install import install_command

# Code of the finding that unitune can plan for the backend but cannot launch there
NO_BACKEND = "no-backend"
QUOTE_KEY = "unitune-quote"  # replaces the launch key; nothing is created under it


def existence_findings(resolved: ResolvedJob) -> tuple[Finding, ...]:
    """Return an error if no installed package provides the backend."""
    if resolved.offer.name in registry.backend_names():
        return ()
    offers = (registry.offer(name) for name in registry.backend_names() if name != FOR_TESTS)
    names = listed([offer.name for offer in offers if offer.methods])
    return (error(NO_BACKEND, resolved.offer.unavailable, f"Backends that can launch: {names}."),)


def backend_findings(resolved: ResolvedJob) -> tuple[tuple[Finding, ...], tuple[Forecast, ...]]:
    """Return the backend's findings and, if it trains on this machine, a forecast of each run."""
    if no_backend := existence_findings(resolved):
        return no_backend, ()
    name, here = resolved.offer.name, resolved.offer.trains_here
    if not here and (missing := registry.missing_packages(name)):
        what = f"launching on this backend requires {', '.join(missing)}."
        return (note("missing-extra", what, f"Install with: {install_command(name)}"),), ()
    refused = of_runs({run.setting: _refusal(run) for run in resolved.runs})
    if refused or not (here and isinstance(resolved.backend, Forecasts)):
        return refused, ()
    forecasts = _forecasts(resolved, resolved.backend)
    findings = of_runs({name: forecast.findings for name, forecast in forecasts.items()})
    return findings, tuple(forecasts.values())


def _forecasts(resolved: ResolvedJob, backend: Forecasts) -> dict[str, Forecast]:
    """Return a forecast of each run. Runs that differ only in their seeds share one."""
    made: dict[str, Forecast] = {}
    alike: dict[tuple[str, int], Forecast] = {}
    for run in resolved.runs:
        job, splits, seed = run.job, run.splits, run.job.tuning.seed
        seedless = job.tuning.model_copy(update={"seed": "auto"}).model_dump_json()
        key = (seedless, len(splits.train))
        if key not in alike:
            alike[key] = backend.forecast(job, splits.train, splits.validation, run.start)
        settings = alike[key].settings | ({} if seed == "auto" else {"seed": seed})
        made[run.setting] = alike[key].model_copy(update={"settings": settings})
    return made


def _refusal(resolved: ResolvedJob) -> tuple[Finding, ...]:
    try:
        if isinstance(resolved.backend, ValidatesOptions):
            resolved.backend.validate_options(resolved.job)
    except MissingExtra as missing:
        return (error("missing-extra", str(missing)),)
    except JobError as refusal:
        return (error("refused-options", str(refusal)),)
    except Unsupported as refusal:
        return (error("unsupported-options", str(refusal)),)
    return ()


def calibrate(job: Job | ResolvedJob) -> None:
    """Time a few steps of a job's training here, to make later forecasts more precise.

    Raises Unsupported if the backend does not train here, or BackendError if the process died.
    """
    resolved = preflight(job)
    backend = resolved.backend
    if not isinstance(backend, Calibrates):
        raise Unsupported(
            f"backend {resolved.offer.name!r} does not train on this machine, so it cannot be "
            "calibrated. Leave --calibrate out."
        )
    splits = resolved.splits
    backend.calibrate(resolved.job, splits.train, splits.validation, resolved.start)


def counted_by_vendor(resolved: ResolvedJob) -> ResolvedJob:
    """Return the job with token counts scaled to the vendor's count of a sample of its rows.

    Raises Unsupported if the vendor does not count tokens, or BackendError.
    """
    backend, model = resolved.backend, resolved.job.base_model
    if not isinstance(backend, CountsTokens):
        raise Unsupported(f"{resolved.offer.name} does not count tokens before a launch.")
    own = counter_for(model, aliases=resolved.terms.aliases)
    sample = [row.example for row in spread(resolved.splits.train.rows, SAMPLE_ROWS)]
    counters = {model: VendorCounter.sampled(backend, model, own, sample)}
    return replace(resolved, rows=Rows(resolved.rows.read, counters))


def quote(job: Job | ResolvedJob) -> Decimal:
    """Return the vendor's quote for a training, or for all runs of a sweep, in US dollars.

    The files of the launch are uploaded, named by their hash, so that a launch can reuse them.

    Raises:
        Unsupported: The vendor does not quote prices.
        MissingExtra: The backend's packages are not installed.
        BackendError: The vendor refused the files or did not answer.
    """
    resolved = preflight(job)
    if resolved.is_sweep:
        return sum((quote(run) for run in resolved.runs), start=Decimal(0))
    job, backend = resolved.job, resolved.backend
    if not isinstance(backend, Quotes):
        raise Unsupported(f"{job.backend} does not quote a price before a launch.")
    form = resolved.terms.formats.get(job.method)
    with TemporaryDirectory() as temporary:
        folder, uploads = Path(temporary), dict[str, Upload]()
        for name, rows in resolved.uploads.items():
            content = wire_text(rows, form).encode()
            (folder / name).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            uploads[name] = backend.upload(folder / name, sha256)
        training, validation = uploads["train.jsonl"], uploads.get("validation.jsonl")
        return backend.quote(Launch(QUOTE_KEY, job, training, validation, folder, resolved.start))
