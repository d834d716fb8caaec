# make quickstart   set up what itemic itself needs, run the built-in marketplace from data to table
# make test         set up with all extras, lint, types, floors, all tests (JOBS=2 of them at a time)
# make fast         the same without the slow tests
# make bench        every benchmark at its small size
# make reference    write docs/reference.md from the code
# make families    write docs/families.md, what is exact for which models, by proving it
# make docs         build the site of documents, in site/
# make clean        remove what the above made, but for runs/

NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p $(NEW_ENOUGH) 2>/dev/null && echo $$p && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
LIGHT  := $(VENV)/light
JOBS   ?= 2
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
TORCH  := $(shell grep -E '^torch==' constraints.txt)

.PHONY: setup quickstart test fast lint bench reference families docs clean

setup: $(READY)

# what itemic itself needs, and nothing else
# torch comes first and by its exact version, so that a wheel that is at hand (say, the CPU build) is taken
$(LIGHT): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) $(NEW_ENOUGH) || { echo "itemic needs Python 3.11 or later; set PYTHON=…"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -e .
	@touch $@

$(READY): $(LIGHT)
	$(PIP) -e '.[dev]'
	$(PIP) --no-build-isolation deepspeed einops
	@touch $@

quickstart: $(LIGHT)
	$(BIN)/itemic run quickstart

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# a file's tests share what they set up, so a file stays with one worker; each worker keeps to one core
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

fast: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'not slow'

bench: $(READY)
	$(PIP) -e '.[bench]'
	@for bench in decode sample control rank forest train rl rl_table rl_simulated control_rl analysis stream data sid sid_downstream; do $(BIN)/python benchmarks/$$bench.py --quick || exit 1; done

families: $(READY)
	$(BIN)/python -m tests.model.test_families

reference: $(READY)
	$(BIN)/python docs/tools/reference.py

docs: $(READY)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
