# jqlight in a container, run as a non-root user.
#   docker build --target cpu -t jqlight .            CPU: from the lock file
#   docker build --target gpu -t jqlight:gpu .        NVIDIA GPU: vLLM 0.33 with its own torch
#   docker run --rm -v "$PWD/runs:/home/jqlight/runs" jqlight fit --config conf/quickstart.yaml
# A data folder or a local model is mounted the same way and named with --data.path and --model.policy.name_or_path.

FROM python:3.11-slim-bookworm AS base
# gcc: torch compiles small kernels at run time.  numactl: vLLM's CPU engine asks for the memory layout.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libnuma1 git && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 jqlight
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    VLLM_ENABLE_V1_MULTIPROCESSING=0 MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /opt/jqlight

FROM base AS cpu
COPY requirements.lock ./
# The lock file leaves out torchvision, torchaudio and torchcodec, hence --no-deps.
RUN pip install --no-deps --extra-index-url https://download.pytorch.org/whl/cpu "torch==2.13.0+cpu" \
    && pip install --no-deps -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY jqlight jqlight
RUN pip install --no-deps .
COPY --chown=jqlight conf /home/jqlight/conf
COPY --chown=jqlight sweeps /home/jqlight/sweeps
USER jqlight
WORKDIR /home/jqlight
ENTRYPOINT ["jqlight"]
CMD ["--help"]

FROM base AS gpu
COPY pyproject.toml README.md LICENSE ./
COPY jqlight jqlight
RUN pip install ".[gpu,lora]"
COPY --chown=jqlight conf /home/jqlight/conf
COPY --chown=jqlight sweeps /home/jqlight/sweeps
USER jqlight
WORKDIR /home/jqlight
ENTRYPOINT ["jqlight"]
CMD ["--help"]
