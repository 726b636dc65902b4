# docker build --target cpu -t motionbox .         extraction and readers on processors, also as a Ray job (ray[default])
# docker build --target cuda -t motionbox:cuda .   the same on NVIDIA GPUs, and training
# docker run --gpus all --shm-size 16g ...         training's workers hand over their batches in shared memory
#
# Versions are those of constraints.txt; pip takes them from the index that it is configured for.

FROM python:3.11-slim-bookworm AS wheels
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt build hatchling
COPY packages packages
RUN python -m build --no-isolation --wheel --outdir /wheels packages/motionbox \
    && python -m build --no-isolation --wheel --outdir /wheels packages/mofo_train

FROM python:3.11-slim-bookworm AS cpu
# The bind mount keeps wheels and pins out of the image.
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir -c /constraints.txt "$(echo /wheels/motionbox-*.whl)[extract,cloud]" "ray[default]" \
    && useradd --create-home --uid 10001 motionbox
USER 10001
WORKDIR /home/motionbox
ENTRYPOINT ["motionbox"]
CMD ["--help"]

FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04 AS cuda
# Triton compiles its launchers when they are first used: a C compiler and Python's headers stay in the image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/motionbox
ENV PATH=/opt/motionbox/bin:$PATH
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir -c /constraints.txt "$(echo /wheels/motionbox-*.whl)[gpu,cloud]" /wheels/mofo_train-*.whl \
    && useradd --create-home --uid 10001 motionbox
USER 10001
WORKDIR /home/motionbox
ENTRYPOINT ["motionbox"]
CMD ["--help"]
