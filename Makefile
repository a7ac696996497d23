# Each target sets up .venv by itself: python3 (3.11 or newer) with venv and a network to the package index will do.
PYTHON ?= python3
PACK   ?= ecg
BIN    := .venv/bin
PACKS  := $(patsubst plugins/%/pyproject.toml,plugins/%,$(wildcard plugins/*/pyproject.toml))
READY  := .venv/.ready
EXTRA_video := games

.PHONY: quickstart test test-all test-faults test-wheels gpu-check lint docs bench clean
# Data that no package of the index installs is fetched first, into the cache that `counterpoint data` names.
quickstart: $(READY)
	$(if $(EXTRA_$(PACK)),$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e 'plugins/$(PACK)[$(EXTRA_$(PACK))]')
	$(BIN)/counterpoint data $(PACK)/quickstart
	$(BIN)/counterpoint fit $(PACK)/quickstart

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not gpu"

test-all: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not gpu"

# Kills, damage, bad input, hostile files: ROUNDS times as many as in `make test`; records the table of docs/reliability.md.
ROUNDS ?= 10
EXTRAS := $(foreach pack,$(notdir $(PACKS)),$(if $(EXTRA_$(pack)),-e 'plugins/$(pack)[$(EXTRA_$(pack))]'))
test-faults: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(EXTRAS)
	$(BIN)/python benchmarks/faults.py --rounds $(ROUNDS)

# Each pack from its wheel, with the core's wheel alone beside it: what the tree holds, the kit, and its own tests.
test-wheels: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(EXTRAS)
	for pack in $(notdir $(PACKS)); do $(BIN)/counterpoint data $$pack/quickstart || exit 1; done
	$(BIN)/python -m pytest tests/test_wheels.py

# Needs no .venv: it runs with whatever python3 has torch, lightning and pytest, and names what it skips.
gpu-check:
	PYTHONPATH=core:$(subst $() ,:,$(PACKS)) $(PYTHON) -m pytest tests/test_gpu.py tests/test_fused.py -rs

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-logo --no-cache

# The generated pages, and the site in build/site; a link that leads nowhere ends it.
docs: $(READY)
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Loss, loop, a whole quickstart, views and start-up beside peers that are installed for it alone, then long: three seeds of every quickstart.
# `make bench PACKS_TO_RUN="ecg video"` takes some packs.
PACKS_TO_RUN ?= $(notdir $(PACKS))
bench: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	for part in loss ranks loop end_to_end views startup speed; do $(BIN)/python -W ignore benchmarks/$$part.py || exit 1; done
	$(BIN)/python benchmarks/throughput.py $(PACKS_TO_RUN)
	for pack in $(PACKS_TO_RUN); do $(BIN)/python benchmarks/quickstart.py $$pack || exit 1; done

$(READY): pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(PACKS))
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' $(foreach pack,$(PACKS),-e '$(pack)[test]')
	@touch $@

clean:
	rm -rf .venv build dist
