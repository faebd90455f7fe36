# Thin targets over plain commands. Each command also works by itself in the virtual environment (. .venv/bin/activate).
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Every Ansible module is a process of its own: without byte code each would compile its libraries anew.
export PYTHONDONTWRITEBYTECODE :=

lab = python scripts/lab_lock.py

.PHONY: help bootstrap bootstrap-tests up down status credentials logs test test-fast bench drills lint unit lock

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 16

bootstrap: ## Install what the controller needs
	@scripts/bootstrap

bootstrap-tests: ## Install also what tests and benchmarks start
	@scripts/bootstrap tests

up: bootstrap ## From a bare machine to a running, verified platform on the local lab
	@$(lab) sh -c 'python molecule/lab/state.py && python scripts/check_inventory.py inventories/local && ansible-playbook molecule/default/create.yml && ansible-playbook site.yml'

down: bootstrap ## Remove all that `make up` made (build caches stay)
	@$(lab) ansible-playbook molecule/default/destroy.yml

status: bootstrap ## Nodes, workloads, error budgets, backups, certificates and open alerts
	@python scripts/status.py

credentials: bootstrap ## URLs, users and passwords
	@ansible-playbook playbooks/credentials.yml

logs: bootstrap ## Follow a service's logs: make logs SERVICE=api
	@python scripts/logs.py "$(SERVICE)"

lint: bootstrap ## Every linter
	@scripts/lint

test-fast: bootstrap-tests ## What needs no lab, in under five minutes
	@scripts/test fast

test: bootstrap-tests ## Every test, on a lab that it makes if there is none
	@scripts/test all

bench: bootstrap-tests ## What the services cost and hold, beside their goals, in under six minutes
	@python plugins/module_utils/artifact_store.py build minio
	@python -m bench $(BENCH)

drills: bootstrap-tests ## Break the platform, lose the whole cluster, count what is lost and who is told
	@$(lab) python -m drills $(DRILLS)

lock: bootstrap ## Lock the Python dependencies again, after a change of an .in file
	@scripts/lock
