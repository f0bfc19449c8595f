# make lab     run a real VOLTTRON platform, the worker with its pages, and a MongoDB-wire server
#              (STORE=history: with a SQLite file instead, KAFKA=1: with Kafka, PORT=8083: of the pages)
# make test    all tests, on real servers; make check: only the fast ones
PYTHON ?= python3
BIN := .venv/bin
FAST := not kafka and not volttron and not mongo and not browser and not fresh and not stack

# Tests start hundreds of interpreters; without bytecode on disk each of them compiles everything.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help lab stack test chaos plugins-test agent-test parquet-test stack-test check style fast coverage bench docs docs-serve lock changelog release-check vendor screenshots clean

help:
	@echo "make lab            run a real VOLTTRON platform -> tieline -> MongoDB on this machine (Ctrl-C stops it)"
	@echo "make lab STORE=history  the same with a SQLite file instead of MongoDB"
	@echo "make lab PORT=9000  serve its pages at this port (by default 8083 if it is free)"
	@echo "make lab KAFKA=1    the same with a real Apache Kafka (needs java and mvn)"
	@echo "make lab DURATION=60  stop after 60 s; the last line is the result as JSON"
	@echo "make stack          run the same in containers, with Kafka (docker/README.md)"
	@echo "make test           run all tests, on real servers: under 20 minutes the first time"
	@echo "make chaos          run the campaigns of random faults with ten seeds (or SEEDS=7,8), about an hour:"
	@echo "                    with bad records for 30 minutes on each backend (or CHAOS_SECONDS=30 a seed)"
	@echo "make plugins-test   build, install and run a new connector of each kind in a fresh environment"
	@echo "make agent-test     install the VOLTTRON agent with vctl on a real platform of each generation"
	@echo "make parquet-test   test the Parquet sink; DuckDB and Spark read its files (needs java)"
	@echo "make stack-test     restart each container under load (needs Docker, or root on Debian)"
	@echo "make bench          run the benchmarks; one JSON line per figure (ARGS=name: only this one)"
	@echo "make docs           build the documentation site offline in build/site; warnings are errors"
	@echo "make docs-serve     serve it on 127.0.0.1:8000, rebuilt at each change"
	@echo "make changelog      print the changelog of the fragments in changes/"
	@echo "make release-check  build and check wheel and sdist, install them, run the lab from an empty folder"
	@echo "make screenshots    take the pictures of the pages in docs/images (needs Chromium)"
	@echo "make vendor         fetch the pages' assets and axe-core again, with their hashes (needs npm)"
	@echo "make lock           lock the images' packages again, with their hashes"
	@echo "make fast           run the quick tests without servers: under two minutes"
	@echo "make coverage       measure what the tests without servers cover; fails below the floor"
	@echo "make check          check style, types and layers, then run make fast"

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tieline needs Python 3.10 or newer, not " + sys.version)'
	@echo "== creating the environment in .venv"
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
	@$(BIN)/tieline lab $(if $(KAFKA),--kafka) $(if $(DURATION),--duration $(DURATION)) $(if $(STORE),--store $(STORE)) $(if $(PORT),--port $(PORT)) $(ARGS)

stack: .venv/.lab
	@$(BIN)/python -m tieline_lab.compose $(ARGS)

style: .venv/.check
	@echo "== style, types, layers"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/codespell
	@$(BIN)/mypy
	@$(BIN)/lint-imports >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

# The tests mostly wait, so three of them share a core.
fast: .venv/.check
	@echo "== quick tests without servers"
	@$(BIN)/python -m pytest -q -n 6 -m "$(FAST) and not slow" tests/unit tests/property tests/contract tests/meta $(ARGS)

check: style fast

coverage: .venv/.check
	@echo "== coverage of the tests without servers (the floor is in setup.cfg)"
	@$(BIN)/python -m pytest -q -n 6 --cov --cov-report= -m "$(FAST)" tests/unit tests/property tests/contract tests/meta $(ARGS)
	@$(BIN)/python -m coverage report

# Three files at a time, each in one process: tests on servers mostly wait. The tests of the pages have
# processes of their own, since Playwright keeps an event loop running.
test: style
	@echo "== all tests on real servers (the first run fetches VOLTTRON and Kafka)"
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile --hypothesis-profile thorough \
		-m "not fresh and not stack" --ignore tests/browser $(ARGS)
	@echo "== the pages in a browser"
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/browser $(ARGS)

SEEDS := 1,2,3,4,5,6,7,8,9,10
CHAOS_SECONDS := 180
chaos: .venv/.check
	@echo "== campaigns of random faults, seeds $(SEEDS)"
	@TIELINE_TEST_SEEDS=$(SEEDS) TIELINE_TEST_CHAOS_SECONDS=$(CHAOS_SECONDS) $(BIN)/python -m pytest -q -n 2 -m seeds tests/chaos $(ARGS)

plugins-test: .venv/.check
	@echo "== new connectors, installed and run in a fresh environment"
	@$(BIN)/python -m pytest -q tests/fresh $(ARGS)

# A separate environment, since it contains Spark.
.venv/.parquet: .venv/.check plugins/parquet_sink/setup.cfg
	@echo "== installing the Parquet sink with DuckDB and PySpark (500 MB)"
	@$(PYTHON) -m venv .venv/parquet
	@.venv/parquet/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' --editable 'plugins/parquet_sink[test]'
	@touch $@

parquet-test: .venv/.parquet
	@echo "== the Parquet sink: exact files after kills; DuckDB, pandas and Spark read them"
	@cd plugins/parquet_sink && ../../.venv/parquet/bin/python -m pytest -q $(ARGS)

stack-test: .venv/.check
	@echo "== the compose stack, each service restarted under load (the first run builds the images)"
	@$(BIN)/python -m pytest -q tests/stack $(ARGS)

# Lock for all platforms, then check that each package has a wheel for the platforms of the images.
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
lock: .venv/.python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(COMPILE) setup.cfg --extra registry -o docker/requirements.lock
	@$(COMPILE) setup.cfg --extra registry --extra lab -c docker/requirements.lock -o docker/lab.lock
	@echo "setuptools>=69" | $(COMPILE) - -o docker/build.lock
	@for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28; do for lock in requirements lab; do \
	  $(BIN)/uv pip install --quiet --dry-run --target build/lock --python-platform $$platform --python-version 3.11 \
	    --only-binary :all: --require-hashes -r docker/$$lock.lock || exit 1; done; done

screenshots: .venv/.check
	@TIELINE_TEST_SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/browser/test_screenshots.py

# The versions are in the folders' vendor.json.
vendor: .venv/.check
	@$(BIN)/python -m tieline.ui.vendoring
	@$(BIN)/python -m tieline.ui.vendoring tests/browser/vendor

agent-test: .venv/.check
	@echo "== the agent, installed on a platform of each generation"
	@cd plugins/volttron_agent && ../../$(BIN)/python -m pytest -q $(ARGS)

bench: .venv/.check
	@$(BIN)/python -m bench $(ARGS)

.venv/.docs: .venv/.python setup.cfg pyproject.toml
	@echo "== installing tieline with what the documentation site needs"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# Without this variable the theme advertises its successor at every run.
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
