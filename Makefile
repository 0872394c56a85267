# Two commands matter: `make train-local` and `make test`. Each sets up what it needs in .venv first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS ?= cpu,dev

# The demo's data are simulated; SOURCE=... LAYOUT=mura|folders|manifest takes your own, with the real recipe.
SOURCE ?=
LAYOUT ?= mura
WORK   ?= runs/$(if $(SOURCE),own,demo)
ifeq ($(SOURCE),)
IMAGE_SIZE ?= 112
CONFIG     ?= smoke
else
IMAGE_SIZE ?= 320
CONFIG     ?= humerus
endif
# Further flags of humerus-train, such as TRAIN_FLAGS="--config.backbone=xception --config.weights=PATH".
TRAIN_FLAGS ?=

# Other runners of Beam, for `make test-distributed`.
RUNNERS := .runners
BEAM    := $(shell sed -n 's/^apache-beam.*==//p' constraints.txt)

# Such as BENCH_FLAGS="--images=2000,20000 --cores=1,2 --sizes=224,320 --source=DIR".
BENCH_FLAGS ?=

.PHONY: help bench train-local test test-slow test-distributed k8s-render lint format clean
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

$(STAMP): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

## make train-local                           the whole job on simulated radiographs, under ten minutes on two cores
## make train-local SOURCE=DIR LAYOUT=mura    the same on your own data, with the real recipe
train-local: $(STAMP)
	@$(BIN)/python -m trainer.local --work='$(WORK)' --source='$(SOURCE)' --layout='$(LAYOUT)' --config='$(CONFIG)' \
		--image_size='$(IMAGE_SIZE)' -- $(TRAIN_FLAGS)

## make test                                  the tests, under fifteen minutes
test: $(STAMP)
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile

## make test-slow                             the long ones
test-slow: $(STAMP)
	$(BIN)/pytest -m slow -n 2 --dist loadfile

$(RUNNERS)/flink: tests/distributed/pom.xml
	mvn --quiet --batch-mode --file $< dependency:copy-dependencies -DoutputDirectory='$(abspath $@)'
	@touch $@

# `container` is the program that Beam's worker images start with.
$(RUNNERS)/bin: constraints.txt
	GOBIN='$(abspath $@)' go install $(addsuffix @v$(BEAM),$(addprefix github.com/apache/beam/sdks/v2/,go/cmd/prism python/container))
	@touch $@

## make test-distributed                      scoring on Flink and Prism, fetched with Maven and built with Go
test-distributed: $(STAMP) $(RUNNERS)/flink $(RUNNERS)/bin
	HUMERUS_RUNNERS=$(RUNNERS) $(BIN)/pytest tests/distributed

## make k8s-render OVERLAY=gpu-1               what `kubectl apply -k k8s/overlays/gpu-1` would apply
OVERLAY ?= local
k8s-render: $(STAMP)
	@$(BIN)/kubectl kustomize 'k8s/overlays/$(OVERLAY)'

## make bench                                 humerus-score beside what one would write instead: speed, memory, cost
bench: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt tf-explain
	$(BIN)/python -m benchmarks.score $(BENCH_FLAGS)

## make lint                                  ruff, mypy and hadolint
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy trainer batch_inference
	$(BIN)/hadolint Dockerfile

## make format                                what `make lint` asks for, done
format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## make clean                                 runs and caches go, .venv stays
clean:
	rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
