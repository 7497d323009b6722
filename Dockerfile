# jqlight in a container; docs/howto/containers.md says how it is run, and what was measured.
#   docker build -t jqlight .                         CPU: from the lock file, by hashes
#   docker build --target gpu -t jqlight:gpu .        NVIDIA GPU: vLLM 0.33 with its own torch
#   docker run --rm -v "$PWD/runs:/home/jqlight/runs" jqlight fit --config conf/quickstart.yaml
# It takes BuildKit (any Docker from 23 on; DOCKER_BUILDKIT=1 before). Pin the base with
# --build-arg BASE=python:3.11-slim-bookworm@sha256:...; pip settings of your own go in as --secret id=pip,src=pip.conf.

ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS base
# numactl's library is loaded by vLLM's CPU engine. tini passes signals on: as process 1 itself, Python would ignore a
# SIGTERM that comes before the trainer listens.
RUN apt-get update && apt-get install -y --no-install-recommends libnuma1 tini && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --shell /usr/sbin/nologin jqlight && chmod 755 /home/jqlight \
    && python -m venv /opt/jqlight
# HOME and USER also for whoever runs it under an id of their own, which no password file knows.
ENV PATH=/opt/jqlight/bin:$PATH HOME=/home/jqlight USER=jqlight PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /home/jqlight

# -- what is installed ----------------------------------------------------------------------------------------------

FROM base AS wheel
COPY pyproject.toml README.md LICENSE /src/
COPY jqlight /src/jqlight
COPY conf /src/conf
COPY sweeps /src/sweeps
RUN --mount=type=cache,target=/home/jqlight/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip wheel --no-deps --wheel-dir /wheel /src

FROM base AS cpu-environment
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.lock /src/
# The CPU build of torch has an index of its own, asked only if pip as configured does not find it. The lock file leaves
# out torchvision, torchaudio and torchcodec, hence --no-deps. What only development and GPUs need is taken out again.
RUN --mount=type=cache,target=/home/jqlight/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    sed -n '/^torch==/,/[^\\]$/p' /src/requirements.lock > /src/torch.lock \
    && { pip install --no-deps --require-hashes -r /src/torch.lock \
    || pip install --no-deps --require-hashes --extra-index-url "$TORCH_INDEX" -r /src/torch.lock; } \
    && pip install --no-deps --require-hashes -r /src/requirements.lock \
    && pip uninstall --yes triton ray mypy mypy-extensions ruff pytest pytest-timeout hypothesis pre-commit pandas-stubs \
       virtualenv

# With the GPU's vLLM and its own torch; resolved at build time, since no machine of ours could lock them.
FROM base AS gpu-environment
COPY --from=wheel /wheel /wheel
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/home/jqlight/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    wheel=$(echo /wheel/*.whl) && pip install "${wheel}[gpu,lora]"

# -- what is run ----------------------------------------------------------------------------------------------------

FROM base AS runtime
COPY --chmod=755 docker/entrypoint.sh /usr/local/bin/jqlight-entrypoint
COPY conf conf
COPY sweeps sweeps
# Any user may make runs where nothing is mounted.
RUN mkdir runs && chmod 1777 runs && chown jqlight: . runs
# Behind what runs, which would run again for every commit.
ARG VERSION=0.2.0 REVISION=unknown CREATED=unknown
LABEL org.opencontainers.image.title=jqlight \
      org.opencontainers.image.description="Train reasoning language models on the Tsallis loss family J_Q" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.created=$CREATED
# No USER: the entry point takes the owner of the mounted folder and leaves root behind.
ENTRYPOINT ["tini", "--", "jqlight-entrypoint"]
CMD ["--help"]

FROM runtime AS gpu
# Triton and torch.compile build small kernels at run time.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libc6-dev && rm -rf /var/lib/apt/lists/*
COPY --from=gpu-environment /opt/jqlight /opt/jqlight

FROM runtime AS cpu
COPY --from=cpu-environment /opt/jqlight /opt/jqlight
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel pip install --no-cache-dir --no-deps /wheel/*.whl

# MLflow's server for compose.yaml: the CPU image and a driver for PostgreSQL.
FROM cpu AS mlflow
RUN --mount=type=cache,target=/home/jqlight/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --no-deps psycopg2-binary==2.9.13 && mkdir /artifacts && chown jqlight: /artifacts
USER 1000
ENTRYPOINT ["tini", "--", "mlflow", "server"]

FROM cpu
