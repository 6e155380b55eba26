# The image of this project: worker, servers and one-shot jobs alike; docker-compose.yml says which runs what.
# Torch is the ordinary build, with CUDA. Where only processors are used, TORCH_INDEX in .env saves several GB.
FROM python:3.11.15-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba AS base
# Where volumes go: a new one takes over the owner. Nothing else is writable.
RUN groupadd --gid 10001 prorec \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin prorec \
    && install --directory --owner=10001 --group=10001 /var/lib/prorec /var/lib/prorec/tmp /data

# MinIO as it is, but for a folder that it may write to without being root. Its makers no longer publish images;
# this one is built of the same source by others.
FROM pgsty/minio:RELEASE.2026-08-04T00-00-00Z@sha256:b6bfe7239bfc83fb90d31612d9704d86039dd714f7904b3f1ad68f211e602372 AS minio
COPY --from=base --chown=10001:10001 /data /data
USER 10001:10001

# Libraries alone: this layer is made again when a version changes, not when the source does.
FROM base AS libraries
ARG TORCH_INDEX
WORKDIR /build
COPY constraints.txt pyproject.toml ./
ENV PIP_CACHE_DIR=/var/cache/pip
RUN --mount=type=cache,target=/var/cache/pip \
    touch README.md \
    && python -m venv /opt/prorec \
    && if [ -n "$TORCH_INDEX" ]; then \
        /opt/prorec/bin/pip install --disable-pip-version-check -c constraints.txt \
            --no-deps --index-url "$TORCH_INDEX" torch; \
    fi \
    && /opt/prorec/bin/pip install --disable-pip-version-check -c constraints.txt '.[text,servers,ray]' \
    && /opt/prorec/bin/pip check

FROM base AS prorec
ENV PATH=/opt/prorec/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    USER=prorec \
    HOME=/tmp \
    TMPDIR=/var/lib/prorec/tmp \
    HF_HOME=/var/lib/prorec/huggingface \
    PREFECT_HOME=/tmp/prefect \
    MPLCONFIGDIR=/tmp/matplotlib \
    GIT_PYTHON_REFRESH=quiet \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
COPY --from=libraries /opt/prorec /opt/prorec
WORKDIR /app
COPY constraints.txt pyproject.toml prefect.yaml ./
COPY configs configs
COPY deploy deploy
COPY prorec prorec
COPY prorec_core prorec_core
COPY tasks tasks
COPY flows flows
# A checkout that its owner alone may read (umask 077) keeps these rights when it is copied.
RUN chmod -R a+rX /app \
    && python -m compileall -q prorec_core tasks flows deploy
USER 10001:10001
CMD ["prorec", "--help"]
