# `make help` lists the targets. VENV=folder names another environment; clones should share one (6 GB).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# The first use sets the environment up; everything runs with its programs first on PATH.
IN_ENV = bin=$$(VENV="$(VENV)" scripts/environment.sh); export PATH="$$bin:$$PATH" PYTHONPATH="$(CURDIR)/src$${PYTHONPATH:+:$$PYTHONPATH}";
DATA ?=

.PHONY: help setup check repro toys test test-fast lint format bench ui sync tables verify stale provenance extend redraw clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## create the environment and install the pinned packages
	@$(IN_ENV) python --version

check: ## check all of params.yaml without running anything
	@$(IN_ENV) python -m isorobust.commands.check

repro: ## run the whole pipeline, mirror it in MLflow, print the comparison
	@$(IN_ENV) python -m isorobust.commands.check; dvc repro; python -m isorobust.commands.sync || true; python -m isorobust.commands.show

toys: ## run the two toy studies alone, rings and torus
	@$(IN_ENV) dvc repro toys

# Two processes side by side. Their threads must not wait for each other at full speed, or both take twice as long.
PYTEST = OMP_WAIT_POLICY=PASSIVE python -m pytest -n 2 --dist loadfile

test: ## the whole test suite
	@$(IN_ENV) ruff check . && ruff format --check --quiet . && $(PYTEST) --durations=15

test-fast: ## the tests without the slow ones: pipeline runs, larger trainings, simulations
	@$(IN_ENV) $(PYTEST) -m "not slow"

lint: ## check style
	@$(IN_ENV) ruff check . && ruff format --check .

format: ## fix style
	@$(IN_ENV) ruff format . ; ruff check --fix .

bench: ## measure training and attacks against plain loops and the machine's floor
	@$(IN_ENV) python -m isorobust.commands.bench

ui: ## open MLflow's page on the runs of this checkout
	@$(IN_ENV) mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}"

sync: ## write the MLflow runs that are missing, from the metric files
	@$(IN_ENV) python -m isorobust.commands.sync

tables: ## write the result tables of README.md and docs/findings.md from the metrics
	@$(IN_ENV) python -m isorobust.commands.tables

verify: ## compare regenerated metrics with the committed ones (DATA=name)
	@$(IN_ENV) python -m isorobust.commands.verify $(DATA)

stale: ## which committed results are older than the code
	@$(IN_ENV) python -m isorobust.commands.provenance stale

provenance: ## record where the results of the present data set came from
	@$(IN_ENV) python -m isorobust.commands.provenance write

extend: ## add the arms that ran here to the published results of the present data set
	@$(IN_ENV) python -m isorobust.commands.extend

redraw: ## compare and draw the published results of the present data set anew, with nothing added
	@$(IN_ENV) python -m isorobust.commands.extend --again

clean: ## remove finished units, downloads and locks; results and caches stay
	rm -rf .isorobust
