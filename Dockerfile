# Image of the command line, and of the worker that trains on rented machines, clusters and under Slurm:
#
#     docker build --target cpu --tag unitune:cpu .
#     docker run --rm -it -v "$PWD:/work" -v unitune:/state unitune:cpu unitune quickstart
#
# Targets: cpu, and cuda (the default), whose wheels of torch bring CUDA; the host has NVIDIA's driver.
# /work has the project. /state has the ledger, your configuration and the base models, in a volume that outlives the container.
# Without a command, the worker runs.
FROM python:3.12-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    XDG_STATE_HOME=/state \
    XDG_CONFIG_HOME=/state/config \
    UNITUNE_CACHE=/state/cache
RUN useradd --create-home --uid 1000 unitune
RUN install --directory --owner unitune --mode 700 /state && install --directory --owner unitune /work
VOLUME ["/state"]
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY unitune unitune
COPY providers providers
COPY local local
COPY examples/bank-intents examples/bank-intents

FROM base AS cpu
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu ".[local,hf-jobs]"
WORKDIR /work
USER unitune
CMD ["python", "-P", "-m", "unitune_local.remote.worker"]

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install ".[local,hf-jobs,4bit]"
WORKDIR /work
USER unitune
CMD ["python", "-P", "-m", "unitune_local.remote.worker"]
