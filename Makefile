# make lab     see it run: a real VOLTTRON platform, the worker, a MongoDB-wire server (KAFKA=1: through Kafka)
# make test    everything, on real servers; make check: the fast part alone
PYTHON ?= python3
BIN := .venv/bin
FAST := not kafka and not volttron and not mongo and not fresh and not stack

# Tests start hundreds of interpreters; without bytecode on disk each compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help lab stack test chaos plugins-test agent-test parquet-test stack-test check style fast coverage bench docs docs-serve lock changelog release-check clean

help:
	@echo "make lab            a real VOLTTRON platform -> tieline -> MongoDB on this machine, live (Ctrl-C stops it)"
	@echo "make lab KAFKA=1    the same through a real Apache Kafka (needs java and mvn)"
	@echo "make lab DURATION=60  without a terminal: stops by itself, its last line is the result as JSON"
	@echo "make stack          the same in containers, through Kafka (docker/README.md)"
	@echo "make test           all tests, on real servers: under 20 minutes the first time"
	@echo "make chaos          the campaigns of random faults with ten seeds (SEEDS=7,8: these), about a quarter of an hour"
	@echo "make plugins-test   a new connector of each kind, built, installed and run in a fresh environment"
	@echo "make agent-test     the agent for VOLTTRON, installed by vctl on a real platform of each generation"
	@echo "make parquet-test   the Parquet sink, its files read by DuckDB and Spark (needs java)"
	@echo "make stack-test     the containers, each restarted under load (without Docker: root on a Debian)"
	@echo "make bench          benchmarks, compared with peers; one JSON line for each figure (ARGS=name: only one)"
	@echo "make docs           the documentation site, offline, in build/site; each warning and broken link is an error"
	@echo "make docs-serve     the same on 127.0.0.1:8000, rebuilt at each change"
	@echo "make changelog      the changelog that the fragments in changes/ give"
	@echo "make release-check  build and check wheel and sdist, install them, run the lab from an empty folder"
	@echo "make lock           lock the packages of the images again, with their hashes"
	@echo "make fast           the tests without servers: under a minute"
	@echo "make coverage       what the tests without servers cover; fails below the floor"
	@echo "make check          style, types, layers, and make fast"

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tieline needs Python 3.10 or newer, not " + sys.version)'
	@echo "== making the environment in .venv"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.lab: .venv/.python setup.cfg pyproject.toml
	@echo "== installing tieline with what the lab needs"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lab]'
	@touch $@

.venv/.check: .venv/.python setup.cfg pyproject.toml
	@echo "== installing tieline with what the checks and tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[check]'
	@touch $@ .venv/.lab

lab: .venv/.lab
	@$(BIN)/tieline lab $(if $(KAFKA),--kafka) $(if $(DURATION),--duration $(DURATION)) $(ARGS)

stack: .venv/.lab
	@$(BIN)/python -m tieline_lab.compose $(ARGS)

style: .venv/.check
	@echo "== style, types, layers"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/codespell
	@$(BIN)/mypy
	@$(BIN)/lint-imports >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

# Most of their time is waiting: three to a core.
fast: .venv/.check
	@echo "== tests without servers"
	@$(BIN)/python -m pytest -q -n 6 -m "$(FAST)" tests/unit tests/property tests/contract tests/meta $(ARGS)

check: style fast

coverage: .venv/.check
	@echo "== coverage of the tests without servers (the floor is in setup.cfg)"
	@$(BIN)/python -m pytest -q -n 6 --cov --cov-report= -m "$(FAST)" tests/unit tests/property tests/contract tests/meta $(ARGS)
	@$(BIN)/python -m coverage report

# Two at a time, a file to a process: most of a test on servers is waiting.
test: style
	@echo "== all tests, on real servers (the first run fetches VOLTTRON and Kafka)"
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --hypothesis-profile thorough \
		-m "not fresh and not stack" $(ARGS)

SEEDS := 1,2,3,4,5,6,7,8,9,10
chaos: .venv/.check
	@echo "== campaigns of random faults, seeds $(SEEDS)"
	@TIELINE_TEST_SEEDS=$(SEEDS) $(BIN)/python -m pytest -q -n 2 -m seeds tests/chaos $(ARGS)

plugins-test: .venv/.check
	@echo "== new connectors, installed and run in an environment of their own"
	@$(BIN)/python -m pytest -q tests/fresh $(ARGS)

# An environment of its own, with a Spark in it.
.venv/.parquet: .venv/.check plugins/parquet_sink/setup.cfg
	@echo "== installing the Parquet sink with DuckDB and PySpark (500 MB, the first time)"
	@$(PYTHON) -m venv .venv/parquet
	@.venv/parquet/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' --editable 'plugins/parquet_sink[test]'
	@touch $@

parquet-test: .venv/.parquet
	@echo "== the Parquet sink: exact files, whatever is killed; read by DuckDB, pandas and Spark"
	@cd plugins/parquet_sink && ../../.venv/parquet/bin/python -m pytest -q $(ARGS)

stack-test: .venv/.check
	@echo "== the compose stack, each service restarted under load (the first run makes its images)"
	@$(BIN)/python -m pytest -q tests/stack $(ARGS)

# For all platforms; then: has each package a wheel for those that images are built for?
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
lock: .venv/.python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(COMPILE) setup.cfg --extra registry -o docker/requirements.lock
	@$(COMPILE) setup.cfg --extra registry --extra lab -c docker/requirements.lock -o docker/lab.lock
	@echo "setuptools>=69" | $(COMPILE) - -o docker/build.lock
	@for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28; do for lock in requirements lab; do \
	  $(BIN)/uv pip install --quiet --dry-run --target build/lock --python-platform $$platform --python-version 3.11 \
	    --only-binary :all: --require-hashes -r docker/$$lock.lock || exit 1; done; done

agent-test: .venv/.check
	@echo "== the agent, installed on a platform of each generation"
	@cd plugins/volttron_agent && ../../$(BIN)/python -m pytest -q $(ARGS)

bench: .venv/.check
	@$(BIN)/python -m bench $(ARGS)

.venv/.docs: .venv/.python setup.cfg pyproject.toml
	@echo "== installing tieline with what the documentation site needs"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# The theme advertises its successor at every run.
MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs
docs: .venv/.docs
	@echo "== the documentation site"
	@$(MKDOCS) build --strict
	@echo "open build/site/index.html"

docs-serve: .venv/.docs
	@$(MKDOCS) serve --strict --dev-addr 127.0.0.1:8000

.venv/.release: .venv/.check
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[release]'
	@touch $@

changelog: .venv/.release
	@$(BIN)/towncrier build --draft --version next

release-check: .venv/.release
	@BIN=$(BIN) PYTHON=$(PYTHON) bash tests/release/check.sh

clean:
	rm -rf .venv .lab build dist framework/*.egg-info *.egg-info
