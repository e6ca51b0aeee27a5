# Plain `make` prints these targets. Each works on a fresh clone: what is missing is prepared first.
SHELL := bash
.DEFAULT_GOAL := help
PYTHON := $(shell if [ "$$CONDA_DEFAULT_ENV" = clickstream ]; then echo "$$CONDA_PREFIX/bin/python"; else echo .venv/bin/python; fi)
CLICKLAB := $(PYTHON) -m clicklab
# Two workers, each with its own servers and ports; a file's tests stay together and in order, but for tests of minutes each.
TWO_WORKERS := -n 2 --dist loadfile --no-loadscope-reorder
LONG_TESTS := -n 2 --dist worksteal
# Each has a target of its own.
NOT_IN_TEST := not drills and not order and not browsers

.PHONY: help prepare prepare-further prepare-browsers run run-all lab up down status doctor check test test-drills test-order test-browsers bench site figures readme lock clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

prepare:
	@python3 clicklab/bootstrap.py prepare

prepare-further:
	@python3 clicklab/bootstrap.py prepare --further

prepare-browsers:
	@python3 clicklab/bootstrap.py prepare --further --browsers

run: prepare  ## prepare this machine, start the pipeline, execute notebooks 00 to 05, print clicks hop by hop
	@$(CLICKLAB) up
	@$(CLICKLAB) run; status=$$?; echo "The pipeline is still up. Stop it with  make down"; exit $$status

run-all: prepare-further  ## the same with the further notebooks, 06 to 08
	@$(CLICKLAB) up
	@$(CLICKLAB) run --all; status=$$?; echo "The pipeline is still up. Stop it with  make down"; exit $$status

lab: up  ## open JupyterLab on the notebooks, with the pipeline running (SITE_LANG=ko: their prose in Korean)
	@$(PYTHON) -m jupyter lab --ip 127.0.0.1 --port "$$($(CLICKLAB) setting LAB_PORT)" --ServerApp.root_dir "$$($(CLICKLAB) lab-folder)" $(if $(filter 0,$(shell id -u)),--allow-root)

up: prepare  ## start all servers and wait until they are usable
	@$(CLICKLAB) up

down:  ## stop all servers; their data stays
	@$(CLICKLAB) down

status:  ## say of each server whether it is usable (MEASURED=1: start-up time and memory as Markdown)
	@$(CLICKLAB) status $(if $(MEASURED),--measured)

doctor: prepare  ## look at everything the course needs on this machine
	@$(CLICKLAB) doctor

check: prepare-further  ## the checks that need no server, 90 s
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m pytest $(TWO_WORKERS) -m "not servers and not browser and $(NOT_IN_TEST)"

test: prepare-further  ## everything, all notebooks included, on free ports and with its own data
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m pytest $(TWO_WORKERS) -m "$(NOT_IN_TEST)"

test-drills: prepare-further  ## break the servers in every way three times, then all at random for ten minutes
	@$(PYTHON) -m pytest $(LONG_TESTS) -m drills

test-order: prepare-further  ## each notebook alone on empty state, each twice, and all in reverse
	@$(PYTHON) -m pytest $(LONG_TESTS) -m order

test-browsers: prepare-browsers  ## the snippet in Chromium and in Firefox, with 1,000 clicks and a long outage
	@$(PYTHON) -m pytest -m browsers

bench: prepare-further  ## measure every hop against a peer, into benchmarks/RESULTS.md (three quarters of an hour)
	@$(CLICKLAB) up
	@$(PYTHON) benchmarks/ingest.py
	@$(PYTHON) benchmarks/produce.py
	@$(PYTHON) benchmarks/land.py
	@$(PYTHON) benchmarks/landing.py
	@$(PYTHON) benchmarks/answers.py
	@$(PYTHON) benchmarks/course.py

site: prepare  ## build the executed course as a blog, into build/site (SITE_LANG=ko: in Korean too, under ko/)
	@$(CLICKLAB) site

figures:  ## take the front page's figures from the notebooks last executed
	@$(CLICKLAB) figures

readme:  ## write the generated parts of README.md again
	@$(CLICKLAB) readme

lock: prepare  ## write the requirements locks and the jar locks again (UPGRADE=1: with the newest packages)
	$(PYTHON) -m clicklab.bootstrap lock $(if $(UPGRADE),--upgrade)

clean:  ## stop the servers, remove .state and build (topics, table, ledger, executed notebooks)
	@if [ -x $(PYTHON) ]; then $(CLICKLAB) clean; else rm -rf .state build; echo "removed .state/ and build/"; fi
