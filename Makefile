# callmetechie.gatecontrol: what a developer types. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/build
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup test unit integration lint clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 16

setup:  ## .venv, Debian packages (as root) and everything the demo and the tests need
	@tests/setup.sh

unit: setup  ## unit and property tests
	$(PY) -m pytest -q tests/unit

integration: setup  ## modules, server, hosts and tunnels for real (root)
	$(PY) -m pytest -q tests/integration

test: setup unit integration  ## everything that must pass

clean:  ## remove what was built, hosts included
	@if [ -x $(PY) ]; then $(PY) tests/hosts clean; fi
	rm -rf build .pytest_cache .hypothesis .ansible .cache
