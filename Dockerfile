# syntax=docker/dockerfile:1
# One image for every service; the command names the service:
#
#   docker build --target cpu -t rlsp:cpu .          docker build --target gpu -t rlsp:gpu .
#   docker run --rm rlsp:cpu check launch/configs/ops_cpu.toml
#   docker run --rm -v "$PWD/runs:/work/runs" --shm-size=2g rlsp:cpu run launch/configs/ops_cpu.toml
#
# User 10001, no shell needed, nothing written outside /work/runs, /tmp and /dev/shm. Mounted run directories must be
# writable for 10001 (chown 10001 runs).

# --- the package, as a wheel ----------------------------------------------------------------------------------------
FROM python:3.11-slim-bookworm AS wheel
RUN pip install --no-cache-dir --no-deps hatchling==1.33.0 packaging==26.3 pathspec==1.1.1 pluggy==1.6.0 \
    tomlkit==0.15.2 trove-classifiers==2025.9.11.17
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY rlsp_async rlsp_async
COPY services services
COPY proto proto
COPY launch/configs launch/configs
RUN python -m hatchling build -t wheel -d /dist

# --- cpu: real vLLM without CUDA, the pins of launch/requirements-cpu.txt --------------------------------------------
FROM python:3.11-slim-bookworm AS cpu-packages
RUN python -m venv /opt/rlsp
ENV PATH=/opt/rlsp/bin:$PATH
COPY launch/requirements-cpu.txt /tmp/requirements-cpu.txt
RUN pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu \
    "$(grep '^torch==' /tmp/requirements-cpu.txt)" && \
    pip install --no-cache-dir --no-deps -r /tmp/requirements-cpu.txt
COPY --from=wheel /dist /tmp/dist
RUN pip install --no-cache-dir --no-deps /tmp/dist/*.whl

FROM python:3.11-slim-bookworm AS cpu
# vLLM's CPU kernels need OpenMP and NUMA at run time.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 libnuma1 && rm -rf /var/lib/apt/lists/* && \
    useradd --uid 10001 --user-group --create-home rlsp && mkdir -p /work/runs && chown -R 10001:10001 /work
COPY --from=cpu-packages /opt/rlsp /opt/rlsp
COPY --chown=10001:10001 launch/configs /work/launch/configs
ENV PATH=/opt/rlsp/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HOME=/tmp
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["rlsp"]
CMD ["--help"]

# --- gpu: the `vllm` extra with CUDA ---------------------------------------------------------------------------------
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04 AS gpu-python
# Ubuntu 24.04 brings Python 3.12; build-essential and the headers let triton compile its launchers at run time.
RUN apt-get update && apt-get install -y --no-install-recommends python3.12 python3.12-venv python3.12-dev \
    build-essential && rm -rf /var/lib/apt/lists/*

FROM gpu-python AS gpu-packages
RUN python3.12 -m venv /opt/rlsp
ENV PATH=/opt/rlsp/bin:$PATH
COPY --from=wheel /dist /tmp/dist
RUN pip install --no-cache-dir "$(ls /tmp/dist/*.whl)[vllm]"

FROM gpu-python AS gpu
RUN useradd --uid 10001 --user-group --create-home rlsp && mkdir -p /work/runs && chown -R 10001:10001 /work
COPY --from=gpu-packages /opt/rlsp /opt/rlsp
COPY --chown=10001:10001 launch/configs /work/launch/configs
ENV PATH=/opt/rlsp/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 HOME=/tmp
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["rlsp"]
CMD ["--help"]
