# The commands of this repository. Each sets up what it needs, in environments of its own: the three
# stages' packages exclude each other.

PYTHON ?= python3.11
PROTOS := protos/pyproject.toml protos/setup.py $(shell find protos/amela -name '*.proto')
BUF := tests/node/node_modules/.bin/buf

# What `make demo` shows: STAGE=asr (ENGINE=pocketsphinx or nemo) or STAGE=sts.
STAGE ?= asr
ENGINE ?= pocketsphinx
DEMO := $(if $(filter sts,$(STAGE)),sts,$(ENGINE))

.PHONY: help images demo demo-pocketsphinx demo-nemo demo-sts test test-embedded test-nemo test-sts test-system lint bench clean
help:
	@echo "make demo        set up, start servers, transcribe real speech, show the word error rate"
	@echo "                 (ENGINE=nemo: a tiny NeMo model; STAGE=sts: resynthesis through units)"
	@echo "make test        set up, run the whole suite, print the coverage"
	@echo "make lint        ruff, mypy --strict, buf lint, shellcheck"
	@echo "make bench       all benchmarks; make bench-NAME runs bench/NAME.py"
	@echo "make images      Apptainer images; make image-vad, image-asr, … builds one"
	@echo "make clean       remove what the commands above made"

# $(call environment,FOLDER,LOCK,DISTRIBUTIONS): make an environment from a lock, our own code editable.
# The locks name every package, so nothing is resolved; pip 24.0 is the last to read omegaconf 2.0.6.
define environment
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet pip==24.0 setuptools==80.9.0 wheel==0.45.1
	$(1)/bin/pip install --quiet --no-deps --requirement tests/requirements.lock
	$(1)/bin/pip install --quiet --no-deps --requirement $(2)
	$(1)/bin/pip install --quiet --no-deps --force-reinstall ./protos
	$(1)/bin/pip install --quiet --no-deps $(addprefix --editable ,$(3))
endef

# $(call torch,FOLDER,LOCK): a torch built for GPUs needs CUDA's packages as well, which no lock for both kinds can name.
torch = $(1)/bin/pip install --quiet $$(grep '^torch==' $(2))

# The VAD server, the ASR server with its embedded engine, and the client.
.venv/.ready: apptainer/embedded.lock apptainer/vad.lock apptainer/client.lock tests/requirements.lock $(PROTOS) services/common/pyproject.toml services/vad/pyproject.toml services/asr/pyproject.toml client/pyproject.toml
	tools/system-packages libc++1 python3-venv
	$(call environment,.venv,apptainer/embedded.lock,services/common services/vad services/asr client)
	touch $@

# The ASR server with NeMo.
.venv-nemo/.ready: apptainer/asr.lock tests/requirements.lock $(PROTOS) services/common/pyproject.toml services/asr/pyproject.toml
	tools/system-packages libc++1 python3-venv build-essential python3-dev
	$(call environment,.venv-nemo,apptainer/asr.lock,services/common services/asr client)
	$(call torch,.venv-nemo,apptainer/asr.lock)
	touch $@

# Triton itself, without a container.
.venv-triton/.ready: .venv-nemo/.ready
	.venv-nemo/bin/pip install --quiet --no-deps --upgrade --target .venv-triton nvidia-pytriton==0.7.0
	touch $@

# The S2S server.
.venv-sts/.ready: apptainer/sts.lock tests/sts.lock tests/requirements.lock $(PROTOS) services/common/pyproject.toml services/sts/pyproject.toml client/pyproject.toml
	tools/system-packages libc++1 python3-venv build-essential python3-dev
	$(call environment,.venv-sts,apptainer/sts.lock,services/common services/sts client)
	$(call torch,.venv-sts,apptainer/sts.lock)
	.venv-sts/bin/pip install --quiet --no-deps --requirement tests/sts.lock
	touch $@

# buf, and a client in another language for the tests.
$(BUF): tests/node/package.json
	tools/system-packages nodejs npm
	cd tests/node && npm install --silent --no-audit --no-fund --no-package-lock
	touch $@

demo: demo-$(DEMO)
demo-pocketsphinx: .venv/.ready
	.venv/bin/python examples/demo.py
demo-nemo: .venv-nemo/.ready
	.venv-nemo/bin/python examples/demo.py --nemo
demo-sts: .venv-sts/.ready
	.venv-sts/bin/python examples/demo_sts.py

# Each part of the suite runs where its stage lives; the coverage is that of all parts together.
test: .venv/.ready
	.venv/bin/coverage erase
	$(MAKE) test-embedded
	$(MAKE) test-nemo
	$(MAKE) test-sts
	$(MAKE) test-system
	.venv/bin/coverage combine --quiet
	.venv/bin/coverage report --fail-under=90
test-embedded: .venv/.ready $(BUF)
	.venv/bin/coverage run -m pytest $(PYTEST_ARGS) --ignore=tests/system --ignore-glob='*/sts' --ignore-glob='*/nemo' --ignore-glob='*/triton'
test-nemo: .venv-nemo/.ready .venv-triton/.ready
	OMP_NUM_THREADS=1 .venv-nemo/bin/coverage run -m pytest $(PYTEST_ARGS) tests/integration/asr/nemo tests/integration/asr/triton tests/unit/asr
test-sts: .venv-sts/.ready
	OMP_NUM_THREADS=1 .venv-sts/bin/coverage run -m pytest $(PYTEST_ARGS) tests/unit/sts tests/integration/sts
# A real SLURM and a real Apptainer, on this machine.
test-system: .venv/.ready
	tools/system-packages slurm-wlm munge mmdebstrap
	.venv/bin/coverage run -m pytest $(PYTEST_ARGS) tests/system

lint: .venv/.ready .venv-nemo/.ready .venv-sts/.ready $(BUF)
	tools/system-packages shellcheck
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy services/vad/src client/src bench/cluster.py bench/rpc.py bench/vad.py bench/daylong.py examples/demo.py
	.venv-nemo/bin/mypy services/common/src services/asr/src bench/asr.py
	.venv-sts/bin/mypy services/sts/src bench/sts.py examples/demo_sts.py
	cd protos && ../$(BUF) lint
	shellcheck -x .ci/run tools/* slurm/*.slurm apptainer/common/install services/asr/triton/start

bench: bench-vad bench-rpc bench-cluster bench-daylong bench-asr bench-sts
bench-asr: .venv-nemo/.ready .venv-triton/.ready
	.venv-nemo/bin/python bench/asr.py
bench-sts: .venv-sts/.ready
	.venv-sts/bin/python bench/sts.py
bench-%: .venv/.ready
	.venv/bin/python bench/$*.py

# Images of the stages and the client, in images/. BOOTSTRAP, BASE, INDEX, LOCK, FAIRSEQ and TEXTLESS go to the
# recipes (apptainer/README.md explains them); BUILD_OPTIONS to `apptainer build`.
APPTAINER ?= $(or $(shell command -v apptainer),tools/apptainer)
IMAGES ?= images
REVISION = $(or $(shell git describe --always --abbrev=40 --exclude='*' --dirty 2>/dev/null),unknown)
# $(call argument,NAME): pass on what the command line of make says.
argument = $(if $(findstring command line,$(origin $(1))),--build-arg '$(1)=$($(1))')
images: image-vad image-asr image-sts image-client
image-asr-embedded: RECIPE_ARGUMENTS := --build-arg LOCK=embedded.lock
image-%:
	mkdir -p $(IMAGES)
	$(if $(wildcard $(BASE).binds),APPTAINER_BIND=$$(cat $(BASE).binds)) $(APPTAINER) build --force --build-arg REVISION=$(REVISION) \
	    $(foreach name,BOOTSTRAP BASE INDEX LOCK FAIRSEQ TEXTLESS,$(call argument,$(name))) $(RECIPE_ARGUMENTS) \
	    --warn-unused-build-args $(BUILD_OPTIONS) $(IMAGES)/$*.sif apptainer/$(firstword $(subst -, ,$*)).def

clean:
	rm -rf .venv* .demo .apptainer images .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/node/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} + -o -name '*.egg-info' -prune -exec rm -rf {} +
