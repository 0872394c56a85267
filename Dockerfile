# Two images from one file, for linux/amd64 (docs/cluster-from-nothing.md has the whole commands):
#   docker build --platform=linux/amd64 --target train --tag humerus-train:0.1.0 .
#     training on GPUs (CUDA comes with the wheels), preparation, TensorBoard
#   docker build --platform=linux/amd64 --target score --tag humerus-score:0.1.0 .
#     scoring on CPUs with OpenVINO; also a Beam SDK container for Dataflow and Flink
# requirements.lock gives the version and the hashes of every Python package, also of those that
# build others. Tags of base images move. For a build that can be repeated, name their digests:
#   --build-arg PYTHON_IMAGE=python@sha256:...
#   --build-arg BEAM_IMAGE=apache/beam_python3.11_sdk@sha256:...
# `docker buildx imagetools inspect python:3.11-slim-bookworm` prints a digest.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG BEAM_IMAGE=apache/beam_python3.11_sdk:2.77.0

FROM ${BEAM_IMAGE} AS beam

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ENV VIRTUAL_ENV=/opt/humerus PATH=/opt/humerus/bin:$PATH
# Process 1 has to pass signals on to the command, and to end with its exit code. Debian deletes old
# versions, so that a pinned one could soon not be installed.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
# Libraries ask for the user's name. The home is where pods mount a writable volume.
RUN useradd --uid 65532 --user-group --no-create-home --home-dir /tmp humerus

# The packages that ours need, without ours: an edit of our code leaves this layer as it is.
# setup.py reads README.md.
FROM base AS builder
ENV UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_CONSTRAINT=/src/requirements.lock UV_BUILD_CONSTRAINT=/src/requirements.lock
WORKDIR /src
COPY setup.py pyproject.toml requirements.lock ./
RUN touch README.md && python -m venv "$VIRTUAL_ENV" \
    && sed -n '/^uv==/,/[^\\]$/p' requirements.lock >uv.txt && pip install --require-hashes --requirement uv.txt

FROM builder AS train-packages
RUN uv pip install ".[gpu,cpu]" && uv pip uninstall humerus uv
# ImageNet weights, because pods can't reach the internet: a class of keras.applications, or empty
# for none.
ARG BACKBONE=DenseNet121
RUN mkdir -p /opt/weights && if [ -n "$BACKBONE" ]; then KERAS_HOME=/tmp/keras \
    python -c "import keras, sys; name = sys.argv[1]; \
    network = keras.applications.__dict__[name](include_top=False); \
    network.save_weights(f'/opt/weights/{name.lower()}_notop.weights.h5')" "$BACKBONE"; fi

# Scoring needs TensorFlow to reach gs:// and where OpenVINO can't run: without CUDA, and without
# the headers for custom operations. It quantises no network, so that nncf is left out.
FROM builder AS score-packages
RUN echo tensorflow >excluded.txt && uv pip install --excludes excluded.txt ".[dicom]" openvino tensorflow-cpu \
    && uv pip uninstall humerus uv \
    && rm -r "$VIRTUAL_ENV"/lib/python3.*/site-packages/tensorflow/include

FROM builder AS packages
COPY README.md LICENSE ./
COPY trainer trainer
COPY batch_inference batch_inference
RUN uv build --wheel --out-dir /wheels

FROM base AS train
# Where GKE mounts the driver.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64
COPY --from=train-packages /opt/humerus /opt/humerus
COPY --from=train-packages /opt/weights /opt/weights
RUN --mount=from=packages,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["tini", "--"]
CMD ["humerus-train", "--help"]

FROM base AS score
# Otherwise Beam's program makes a virtual environment for each worker, where this user can't write.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY --from=score-packages /opt/humerus /opt/humerus
RUN --mount=from=packages,source=/wheels,target=/wheels pip install --no-deps --no-index /wheels/*.whl
USER 65532:65532
WORKDIR /tmp
# Dataflow and Flink start this. Jobs and `docker run --entrypoint humerus-score` name a command.
ENTRYPOINT ["/opt/apache/beam/boot"]
