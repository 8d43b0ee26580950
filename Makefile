# `make demo` and `make test` work on a bare Debian machine with Python 3.11; a second call reuses .venv and is quick.
BIN := .venv/bin
STAMP := .venv/.installed
FOLDERS := configs embodied datasets preference policies

.PHONY: help setup demo test check bench numbers clean

help:   ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

setup: $(STAMP)   ## make .venv with the locked packages and see to the GL library
	@.ci/setup gl

$(STAMP): pyproject.toml constraints.txt .ci/setup
	@.ci/setup gl
	@.ci/setup packages
	@touch $@

demo: setup   ## the main job: rollouts, preferences, labels, policies, videos and a report (SETTINGS="seed=1" to change it)
	@$(BIN)/robopref pipeline $(SETTINGS)

check: setup   ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@mkdir -p .typing/robopref && ln -sfn $(foreach folder,$(FOLDERS),../../$(folder)) .typing/robopref/
	$(BIN)/mypy

test: check   ## check, then all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

bench: setup   ## speed and memory against named peers (NAME=render for one of them, CSV=FILE for a table)
	@for name in $(or $(NAME),render collect annotate vlp downstream cir gtr iql prof); do $(BIN)/robopref bench $$name $(if $(CSV),--csv $(CSV)) || exit; done

numbers: setup   ## write the tables and marked numbers of README.md and docs anew from their CSVs
	@$(BIN)/python docs/results/tables --write

mutants: setup   ## change the core line by line and count what the tests notice; hours with SAMPLE=0
	$(BIN)/python tests/mutants.py $(if $(SAMPLE),--sample $(SAMPLE))

clean:   ## remove the environment and caches; runs/ and data/ stay
	rm -rf .venv .mutants .typing .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
