# syntax=docker/dockerfile:1
# Two images from one file, for linux/amd64:
#   docker build --target train --tag humerus-train:0.1.0 .     training on GPUs (CUDA comes with the wheels), preparation, TensorBoard
#   docker build --target score --tag humerus-score:0.1.0 .     scoring on CPUs with OpenVINO; also a Beam SDK container for Dataflow and Flink
# Versions of all Python packages are those of constraints.txt. Pin the base images to a digest with PYTHON_IMAGE and BEAM_IMAGE.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG BEAM_IMAGE=apache/beam_python3.11_sdk:2.77.0

FROM ${BEAM_IMAGE} AS beam

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ENV VIRTUAL_ENV=/opt/humerus PATH=/opt/humerus/bin:$PATH
# A name for the user: libraries ask for it. The home is where pods mount a writable volume.
RUN useradd --uid 65532 --user-group --no-create-home --home-dir /tmp humerus

FROM base AS builder
WORKDIR /src
RUN python -m venv "$VIRTUAL_ENV"
COPY setup.py pyproject.toml constraints.txt README.md ./
COPY trainer trainer
COPY batch_inference batch_inference

FROM builder AS train-builder
RUN pip install --constraint constraints.txt ".[gpu,cpu]"
# ImageNet weights for clusters without a way to the internet: a class of keras.applications, or nothing for none.
ARG BACKBONE=DenseNet121
RUN mkdir -p /opt/weights && if [ -n "$BACKBONE" ]; then KERAS_HOME=/tmp/keras python -c "import keras, sys; \
    keras.applications.__dict__[sys.argv[1]](include_top=False).save_weights(f'/opt/weights/{sys.argv[1].lower()}_notop.weights.h5')" "$BACKBONE"; fi

FROM builder AS score-builder
RUN pip install --constraint constraints.txt ".[cpu]"

FROM base AS train
# Where GKE mounts the driver.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64
COPY --from=train-builder /opt/humerus /opt/humerus
COPY --from=train-builder /opt/weights /opt/weights
USER 65532:65532
WORKDIR /tmp
CMD ["humerus-train", "--help"]

FROM base AS score
COPY --from=score-builder /opt/humerus /opt/humerus
COPY --from=beam /opt/apache/beam /opt/apache/beam
USER 65532:65532
WORKDIR /tmp
# What Dataflow and Flink start; Jobs and `docker run --entrypoint humerus-score` name their command.
ENTRYPOINT ["/opt/apache/beam/boot"]
