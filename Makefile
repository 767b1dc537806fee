# callmetechie.gatecontrol: what a developer types. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/build
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help root setup demo demo-stop test unit integration lint sanity sanity-all images scenario scenarios bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 16

setup:  ## .venv, Debian packages (as root) and everything the demo and the tests need
	@tests/setup.sh

demo: setup  ## three real hosts enrolled into an embedded server, to look at
	@tests/demo.sh

demo-stop:  ## take the demo away
	@tests/demo.sh stop

test: root setup  ## everything that must pass
	@echo "test: lint, unit and sanity side by side, and the hosts' images; each shows what it said when it is done"
	@$(MAKE) --no-print-directory -j -O lint unit sanity images
	@$(MAKE) --no-print-directory scenarios BESIDE=integration

root:
	@[ "$$(id -u)" = 0 ] || { echo "hosts, tunnels and namespaces need root: run it with sudo; make lint unit needs none" >&2; exit 2; }

unit: setup  ## unit and property tests, and attacks on the controller over a stand-in connection
	$(PY) -m pytest -q tests/unit tests/hostile/stand_in

integration: setup  ## modules, embedded server, test hosts and tunnels for real (root)
	$(PY) -m pytest -q tests/integration tests/hostile/real

lint: setup  ## ansible-lint (production), documentation, what Galaxy would say
	@tests/lint.sh

sanity: setup  ## ansible-test sanity on the ansible-core of .venv
	@tests/sanity.sh

sanity-all: setup  ## ansible-test sanity on every ansible-core the collection supports
	@tests/sanity.sh all

scenario: setup  ## one molecule scenario on real hosts (root): make scenario NAME=default
	@tests/scenarios.sh $(NAME)

images: setup  ## the hosts' images, unless they are there (root)
	@$(PY) tests/hosts image --all >/dev/null

# Played by hand (make scenario NAME=vm): the virtual machines, whose emulation takes a machine's whole time.
# The trials with bounds of time run beside those that wait much; fleet, which fills the machine, comes last. BESIDE: what else runs.
scenarios: setup  ## every molecule scenario
	@tests/scenarios.sh default no_lockout windows_twin $(BESIDE) macos_twin rescue wild
	@tests/scenarios.sh fleet

bench: setup  ## measure on real hosts, write build/bench.json
	$(PY) tests/benchmark/bench.py

clean:  ## remove what was built, hosts and images included
	@if [ -x $(PY) ] && [ "$$(id -u)" = 0 ]; then $(PY) tests/hosts clean --images; fi
	rm -rf build .pytest_cache .hypothesis .ansible .cache
