# Everything a fresh machine needs is made here: git, make and Python >= 3.11 with pip are enough.
PYTHON ?= python3
BIN    := .venv/bin
PIP     = $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help setup run test sure format lint types browser bench soak lock clean

help:  ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: .venv/.installed  ## make .venv from the hashed lock, with the cancelq command in it

run: .venv/.installed  ## the main job, end to end on this machine: cancelq demo
	$(BIN)/cancelq demo

test: .venv/.installed-dev .venv/redis-7.0  ## all tests, on real Valkey, SQLite, PostgreSQL and HTTP (and in Chromium, if it is there)
	$(BIN)/python -m pytest -n 4 --dist worksteal

sure: format lint types test  ## what a commit must pass

format: .venv/.installed-dev  ## write the one layout
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet . || true

lint: .venv/.installed-dev  ## ruff, as CI runs it
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.installed-dev  ## mypy, strict
	$(BIN)/mypy

browser: .venv/.installed-dev  ## look at Flower's real page in Chromium, which apt brings where it is missing (as root)
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; }
	$(BIN)/python -m pytest tests/integration/test_watched.py -k browser

bench: .venv/.installed-dev .venv-peers/.installed  ## cancelq beside its peers and the wire alone; what stuck orders cost the others
	$(BIN)/python -m bench
	$(BIN)/python -m bench.fairness

soak: .venv/.installed-dev  ## 100,000 cancels while everything is killed, on seeds and both databases
	$(BIN)/python -m bench.soak

lock: .venv/.installed-dev  ## write the lock files anew from pyproject.toml
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --extra build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --extra build --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header bench/peers/requirements.in -o bench/peers/requirements.lock

clean:  ## remove what make made (the embedded data in .cancelq stays)
	rm -rf .venv .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A Debian without python3-venv has no ensurepip: the machine's own pip then fills the empty venv from outside.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cancelq needs Python 3.11 or newer; $(PYTHON) is older. Say: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv --without-pip .venv

# The oldest Redis with Functions, for the tests: Debian's own, unpacked beside the rest. Without apt they skip.
OLD_REDIS = redis-server redis-tools libjemalloc2 liblzf1 liblua5.1-0 lua-cjson lua-bitop
.venv/redis-7.0: | .venv/bin/python
	@mkdir -p $@.part && cd $@.part && { apt-get download -qq $(OLD_REDIS) || { apt-get update -qq && apt-get download -qq $(OLD_REDIS); }; } 2>/dev/null \
	  && for package in *.deb; do dpkg -x $$package .; done && rm -f *.deb && cd - >/dev/null && mv $@.part $@ \
	  || { rm -rf $@.part; echo "no Redis 7.0 from apt: its tests are skipped" >&2; }

.venv/.installed: requirements.lock pyproject.toml | .venv/bin/python
	$(PIP) install --quiet --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.installed-dev: requirements-dev.lock pyproject.toml | .venv/bin/python
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ .venv/.installed

# Other queues, for make bench alone: what they need stays away from what cancelq needs. Without them it goes on.
.venv-peers/.installed: bench/peers/requirements.lock
	@rm -rf .venv-peers && $(PYTHON) -m venv --without-pip .venv-peers \
	  && $(PYTHON) -m pip --disable-pip-version-check --python .venv-peers/bin/python install --quiet --require-hashes -r $< && touch $@ \
	  || { rm -rf .venv-peers; echo "the peers cannot be installed: the bench goes on without them" >&2; }
