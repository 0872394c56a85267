# The two main commands are `make train-local` and `make test`. Each first installs what it needs into .venv.

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= $(if $(shell test -x $(BIN)/python && echo yes),$(BIN)/python,python3)
EXTRAS ?= cpu,dicom,onnx,mlflow,wandb,hf,dev
COMMA  := ,
# One for each choice of EXTRAS: `make test` after `make train-local EXTRAS=cpu` installs what is missing.
STAMP  := $(VENV)/.installed-$(subst $(COMMA),-,$(EXTRAS))

# Every version and its hash come from requirements.lock, also for what builds a package.
LOCK    := requirements.lock
INSTALL := $(BIN)/uv pip install --quiet --python $(VENV) --constraint $(LOCK) --build-constraint $(LOCK)
export UV_HTTP_TIMEOUT ?= 180
# Without bytecode on the disk, every command compiles all that it imports, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE

# The demo uses simulated radiographs. SOURCE=DIR LAYOUT=mura|folders|manifest|fracatlas|graz trains on your own with the
# real recipe. A folder of work holds one data set: for another source of the same layout and size, name another WORK.
SOURCE ?=
LAYOUT ?= mura
WORK   ?= runs/$(if $(SOURCE),own-$(LAYOUT)-$(IMAGE_SIZE),demo)
ifeq ($(SOURCE),)
IMAGE_SIZE ?= 112
CONFIG     ?= smoke
else
IMAGE_SIZE ?= 320
CONFIG     ?= humerus
endif
# Further flags of humerus-train, for example TRAIN_FLAGS="--config.backbone=xception --config.weights=PATH".
TRAIN_FLAGS ?=

# Other Beam runners, for `make test-distributed`.
RUNNERS := .runners
BEAM    := $(shell sed -n 's/^apache-beam.*==\([0-9.]*\).*/\1/p' $(LOCK))

# For example BENCH_FLAGS="--images=2000,20000 --cores=1,2 --sizes=224,320 --source=DIR".
BENCH_FLAGS ?=

.PHONY: help bench train-local test test-slow test-distributed test-cluster test-image lint docs dist format lock clean
.PHONY: k8s-site k8s-render k8s-delete-jobs
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

PYTHON_VERSION := import sys; print(sys.version)
CHECK_PYTHON   := import sys; found = sys.version_info[:2]; sys.exit(None if (3, 11) <= found <= (3, 13) else \
	"{} is Python {}.{}; expected 3.11 to 3.13: name one, such as make PYTHON=python3.12".format(sys.executable, *found))

# An environment of another Python, or an unfinished one (without pip), is made again.
$(STAMP): setup.py $(LOCK)
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	@[ -x $(BIN)/pip ] && \
		[ "$$($(BIN)/python -c '$(PYTHON_VERSION)' 2>/dev/null)" = "$$($(PYTHON) -c '$(PYTHON_VERSION)')" ] || \
		$(PYTHON) -m venv --clear $(VENV)
	@sed -n '/^uv==/,/[^\\]$$/p' $(LOCK) >$(VENV)/uv.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement $(VENV)/uv.txt
	$(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@

## make train-local                           render, train, evaluate, export and score; under ten minutes on two idle cores
## make train-local SOURCE=DIR LAYOUT=mura    do the same on your own data with the real recipe; TRAIN_FLAGS="--config.X=Y"
train-local: $(STAMP)
	@$(BIN)/python -m trainer.local --work='$(WORK)' --source='$(SOURCE)' --layout='$(LAYOUT)' --config='$(CONFIG)' \
		--image_size='$(IMAGE_SIZE)' -- $(TRAIN_FLAGS)

# A worker that dies ends the run: after a replacement pytest can wait for its tests for ever.
WORKERS := -n 2 --dist loadfile --max-worker-restart=0

## make test                                  run the tests; under fifteen minutes
test: $(STAMP)
	$(BIN)/pytest -m "not slow" $(WORKERS)

## make test-slow                             run the long tests
test-slow: $(STAMP)
	$(BIN)/pytest -m slow $(WORKERS)

$(RUNNERS)/flink: tests/distributed/pom.xml
	mvn --quiet --batch-mode --file $< dependency:copy-dependencies -DoutputDirectory='$(abspath $@)'
	@touch $@

# `container` is the program that Beam's worker images start.
$(RUNNERS)/bin: $(LOCK)
	GOBIN='$(abspath $@)' go install $(addsuffix @v$(BEAM),$(addprefix github.com/apache/beam/sdks/v2/,go/cmd/prism python/container))
	@touch $@

## make test-distributed                      test scoring on Flink (fetched with Maven) and Prism (built with Go)
test-distributed: $(STAMP) $(RUNNERS)/flink $(RUNNERS)/bin
	HUMERUS_RUNNERS=$(RUNNERS) $(BIN)/pytest tests/distributed

# The control plane of `make test-cluster`, kept outside of the checkout: building it takes minutes.
CLUSTER_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/humerus-cluster
CONTROL_PLANE := $(CLUSTER_CACHE)/$(shell sh tests/cluster/controlplane/build.sh --version)
# The first kubectl on the path; any version of the last years renders the overlays.
KUBECTL ?= $(or $(shell command -v kubectl),$(BIN)/kubectl)
OVERLAY ?= local
WITH    ?=
IMAGE_ROOT ?= .image
export BUCKET IMAGE PROJECT REGION RUN

$(CONTROL_PLANE):
	sh tests/cluster/controlplane/build.sh '$@'

## make test-cluster                          apply every overlay to a real control plane, built from Go modules
test-cluster: $(STAMP) $(CONTROL_PLANE)
	HUMERUS_CONTROL_PLANE='$(CONTROL_PLANE)' $(BIN)/pytest tests/cluster

## make test-image                            build the scoring image's files from the Dockerfile and score with them
test-image: $(STAMP)
	tests/image/build.sh '$(abspath $(IMAGE_ROOT))'
	HUMERUS_IMAGE_ROOT='$(IMAGE_ROOT)' $(BIN)/pytest tests/image

## make k8s-site BUCKET=... IMAGE=...          write your bucket and images to k8s/mine/site
k8s-site:
	@k8s/site.sh

## make k8s-render OVERLAY=gpu-1 WITH="spot"   print what `kubectl apply -k k8s/mine/gpu-1` would apply
k8s-render:
	@k8s/overlay.sh '$(OVERLAY)' $(WITH)
	@'$(KUBECTL)' kustomize 'k8s/mine/$(OVERLAY)'

## make k8s-delete-jobs OVERLAY=gpu-1          delete the overlay's Jobs, to apply it with another RUN
# Without OVERLAY the script gets an empty name and refuses: the default is only for `make k8s-render`.
k8s-delete-jobs:
	@KUBECTL='$(KUBECTL)' k8s/delete-jobs.sh '$(if $(filter file,$(origin OVERLAY)),,$(OVERLAY))'

## make bench                                 compare humerus-score with simpler scripts: speed, memory, cost
bench: $(STAMP)
	$(INSTALL) "ray[data]" tf-explain
	$(BIN)/python -m benchmarks.score $(BENCH_FLAGS)

## make lint                                  check with ruff, mypy and hadolint, and that the pages of the interface build
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --explicit-package-bases trainer batch_inference benchmarks docs
	$(BIN)/hadolint Dockerfile
	$(MAKE) --no-print-directory docs

## make format                                fix what `make lint` reports, where ruff can
format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## make docs                                  write the pages of the Python interface to build/api
API := trainer.predictor trainer.radiograph trainer.artifact trainer.model_json.description \
	trainer.model_json.fields trainer.model_json.scaling trainer.hub trainer.errors batch_inference.outputs.records
docs: $(STAMP)
	$(BIN)/python -W error -m pdoc --docformat google --no-show-source --output-directory build/api $(API)

## make dist                                  build wheel, source archive and list of packages (SBOM) in dist
dist: $(STAMP)
	umask 022 && SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" $(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/cyclonedx-py requirements $(LOCK) --output-reproducible --output-file dist/humerus.cdx.json

## make lock                                  write requirements.lock from setup.py and requirements.in
lock: $(STAMP)
	UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile setup.py requirements.in --all-extras --universal \
		--python-version 3.11 --generate-hashes --no-annotate --quiet --output-file $(LOCK)

## make clean                                 remove caches and what was built; runs and .venv stay
clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
