# The two commands that matter are `make lab` and `make test`; each sets up what it needs.

BIN := .venv/bin
FIRST := $(firstword $(patsubst chapters/%,work/%,$(wildcard chapters/00_*/*.ipynb)) work)
# Jupyter refuses to run as root unless it is told to; in containers there is often nobody else.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
FAST := not browser and not network and not slow

.PHONY: help env lab build book lint test clean

help:
	@echo "make lab     open your notebooks in JupyterLab (ARGS='--no-browser --port 9000' goes to JupyterLab)"
	@echo "make test    check the style, the generated notebooks and the code"
	@echo "make build   generate the notebooks from their masters"
	@echo "make book    make the course's pages, to read or to put on a server (ARGS=--open shows them)"
	@echo "make lint    check the style only"
	@echo "make clean   remove caches (delete .venv to set up afresh)"

env:
	@python3 bootstrap.py

# The server's root is the repository, so that every chapter is in reach of the first. Its terminals find `mi`: the path
# is theirs, too, and a shell that is named is no login shell, which would set the path anew.
lab: env
	$(BIN)/mi work
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab $(AS_ROOT) --LabApp.default_url=/lab/tree/$(FIRST) \
		--ServerApp.terminado_settings="shell_command=$${SHELL:-/bin/sh}" $(ARGS)

build: env
	$(BIN)/mi build

book: env
	$(BIN)/python docs/book/build.py $(ARGS)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Two processes, one thread each: torch would otherwise start a thread per core in both. What they share out are classes,
# and modules without classes, in the order that tests/conftest.py gives them.
test: lint
	$(BIN)/mi build --check
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "$(FAST)" -n 2 --dist loadscope --no-loadscope-reorder

clean:
	rm -rf .pytest_cache .ruff_cache build
	find . -name .venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +
