# Everything is done by tools/*.py inside .venv, which the first call makes.
.DEFAULT_GOAL := help
.PHONY: help venv venv-dev demo demo-stop lint docs units molecule e2e bench-preflight bench-weights bench-launch test clean

python := .venv/bin/python
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

venv: ## make .venv with what runs the playbooks (PYTHON=... names a Python)
	@tools/venv.sh control

venv-dev: ## the same with what builds and tests the collection
	@tools/venv.sh dev

demo: venv ## serve a model on this machine through every stage
	@$(python) tools/demo.py start

demo-stop: venv ## stop the demo and remove what it started
	@$(python) tools/demo.py stop

lint: venv-dev ## all checks that read files only, ansible-test's sanity tests among them
	@$(python) tools/lint.py

docs: venv-dev ## build the pages into docs/build/
	@$(python) tools/docs.py

units: venv-dev ## unit tests on all cores
	@$(python) -m pytest tests/unit -n auto

molecule: venv-dev ## tests of roles and playbooks on hosts
	@$(python) tools/scenarios.py

e2e: venv-dev ## integration tests
	@$(python) tools/system_packages.py hosts
	@$(python) tools/system_packages.py docker
	@$(python) -m pytest tests/integration

bench-preflight: venv-dev ## preflight of 16 hosts against three rounds of ping
	@$(python) tools/system_packages.py hosts
	@$(python) benchmarks/preflight.py

bench-weights: venv-dev ## sharing and proving weights against the wire, rsync, aria2 and sha256sum
	@$(python) tools/system_packages.py hosts
	@$(python) tools/system_packages.py sharing
	@$(python) tools/system_packages.py comparison
	@$(python) benchmarks/weights/main.py

bench-launch: venv-dev ## tasks of a launch against the steps of its plan, and the time to plan 32 nodes
	@$(python) tools/system_packages.py hosts
	@$(python) tools/system_packages.py docker
	@$(python) benchmarks/launch.py

test: venv-dev ## lint, docs, molecule, then all of pytest
	@$(python) tools/all_tests.py

clean: ## remove what make has made (not reports)
	rm -rf .venv .cache .ansible docs/build
