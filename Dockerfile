# Image of the worker that trains on rented machines, clusters and under Slurm:
#
#     docker build --target cuda --tag registry.example.com/unitune:cuda .
#
# Targets: cpu, and cuda (the default), whose wheels of torch bring CUDA; the host has NVIDIA's driver.
FROM python:3.12-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HF_HUB_DISABLE_TELEMETRY=1
RUN useradd --create-home --uid 1000 unitune
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY unitune unitune
COPY providers providers
COPY local local
COPY examples/bank-intents examples/bank-intents

FROM base AS cpu
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu ".[local,hf-jobs]"
WORKDIR /home/unitune
USER unitune
CMD ["python", "-P", "-m", "unitune_local.remote.worker"]

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install ".[local,hf-jobs,4bit]"
WORKDIR /home/unitune
USER unitune
CMD ["python", "-P", "-m", "unitune_local.remote.worker"]
