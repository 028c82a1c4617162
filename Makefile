# The commands of this repository. `make demo` and `make test` set up what they need.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := services/common services/vad services/asr client
SOURCES := $(PACKAGES:%=%/src) protos tests bench examples

.PHONY: help setup setup-dev demo test lint bench clean
help:
	@echo "make demo        set up, start servers, transcribe real speech, show the word error rate"
	@echo "make test        set up, run the whole suite, print the coverage"
	@echo "make lint        ruff, mypy --strict, buf lint, shellcheck"
	@echo "make bench       all benchmarks; make bench-NAME runs bench/NAME.py"
	@echo "make clean       remove what the commands above made"

# What runs the services and the client, pinned as in the images.
setup: $(VENV)/.ready
$(VENV)/.ready: apptainer/embedded.lock $(PACKAGES:%=%/pyproject.toml) protos/pyproject.toml protos/setup.py $(shell find protos/amela -name '*.proto')
	tools/system-packages libc++1 python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement apptainer/embedded.lock
	$(BIN)/pip install --quiet --no-deps --force-reinstall ./protos
	$(BIN)/pip install --quiet --no-deps $(PACKAGES:%=--editable %)
	touch $@

# What the tests and the checks need besides.
setup-dev: $(VENV)/.ready-dev
$(VENV)/.ready-dev: $(VENV)/.ready tests/requirements.lock tests/node/package-lock.json
	tools/system-packages nodejs npm shellcheck
	$(BIN)/pip install --quiet --requirement tests/requirements.lock
	cd tests/node && npm ci --silent --no-audit --no-fund
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

test: setup-dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=90

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES:%=%/src) bench examples
	cd protos && ../tests/node/node_modules/.bin/buf lint
	shellcheck tools/system-packages .ci/run

bench: $(patsubst bench/%.py,bench-%,$(wildcard bench/*.py))
bench-%: setup-dev
	$(BIN)/python bench/$*.py

clean:
	rm -rf $(VENV) .demo .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/node/node_modules
	find . -name __pycache__ -o -name '*.egg-info' -o -name build -path '*/services/*' | xargs rm -rf
