# make lab     see it run: a real VOLTTRON platform, the worker, a MongoDB-wire server (KAFKA=1: through Kafka)
# make test    everything, on real servers; make check: the fast part alone
PYTHON ?= python3
BIN := .venv/bin
FAST := not kafka and not volttron and not mongo and not fresh

.DEFAULT_GOAL := help
.PHONY: help lab test plugins-test check style fast bench clean

help:
	@echo "make lab            a real VOLTTRON platform -> tieline -> MongoDB on this machine, live (Ctrl-C stops it)"
	@echo "make lab KAFKA=1    the same through a real Apache Kafka (needs java and mvn)"
	@echo "make lab DURATION=60  without a terminal: stops by itself, its last line is the result as JSON"
	@echo "make test           all tests, on real servers: under 20 minutes the first time"
	@echo "make plugins-test   a new connector of each kind, built, installed and run in a fresh environment"
	@echo "make bench          what it can do, measured beside its peers: one JSON line a figure (ARGS=name: one)"
	@echo "make check          style, types, layers, and the tests without servers: under a minute"

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

style: .venv/.check
	@echo "== style, types, layers"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

fast: .venv/.check
	@echo "== tests without servers"
	@$(BIN)/python -m pytest -q -n 2 -m "$(FAST)" $(ARGS)

check: style fast

# Two at a time, a file to a process: most of a test on servers is waiting.
test: style
	@echo "== all tests, on real servers (the first run fetches VOLTTRON and Kafka)"
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not fresh" $(ARGS)

plugins-test: .venv/.check
	@echo "== new connectors, installed and run in an environment of their own"
	@$(BIN)/python -m pytest -q tests/fresh $(ARGS)

bench: .venv/.check
	@$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf .venv .lab build dist framework/*.egg-info *.egg-info
