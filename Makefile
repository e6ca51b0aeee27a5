# Plain `make` prints these targets. Each does what it says on a fresh clone: what is missing is prepared first.
SHELL := bash
.DEFAULT_GOAL := help
PYTHON := $(shell if [ "$$CONDA_DEFAULT_ENV" = clickstream ]; then echo "$$CONDA_PREFIX/bin/python"; else echo .venv/bin/python; fi)
CLICKLAB := $(PYTHON) -m clicklab
export COMMIT_INTERVAL_MS

.PHONY: help prepare prepare-further run lock

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

prepare:
	@python3 clicklab/bootstrap.py prepare

prepare-further:
	@python3 clicklab/bootstrap.py prepare --further

lock: prepare  ## write the two requirements locks and the three jar locks again
	$(PYTHON) -m clicklab.bootstrap lock
