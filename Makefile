# Needs only python3 (3.10 or newer) and make: everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SAMPLE_READY := $(VENV)/.sample-ready
TEST_READY := $(VENV)/.test-ready
DOCS_READY := $(VENV)/.docs-ready

# Tests run in so many processes, each with one thread and up to 1 GB.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal
# What computes, as on a processor without AVX: bounds that were read off one machine fail there.
NUMERICAL := $(addprefix tests/,processes grids spectra solvers guidance executor calibration skip test_plan.py \
	test_sampling.py integrations/test_diffusers_results.py integrations/test_diffusers_recipe.py)
OLDEST := $(VENV)/oldest-diffusers
WITH_OLDEST := tests/boundary/test_hostile_folders.py tests/models/test_pipelines.py \
	$(addprefix tests/integrations/test_diffusers_,config.py contract.py doctor.py enable.py kinds.py recipe.py)
PLAIN := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2

.PHONY: help sample test test-kernels test-oldest-diffusers lint format docs wheel clean

help:
	@echo "make sample  draw 16 pictures with the embedded model into samples.png"
	@echo "make test    run the test suite, in WORKERS=2 processes"
	@echo "make test-kernels  run the numerical tests with torch's plainest CPU kernels"
	@echo "make test-oldest-diffusers  run the tests of folders and pipelines with the oldest diffusers that is allowed"
	@echo "make lint    ruff, mypy and the layers' contract"
	@echo "make format  sort imports, mend what ruff can, and format the code"
	@echo "make docs    build the documentation into build/site"
	@echo "make wheel   build the package into dist, and try it in an empty environment"
	@echo "make clean   remove .venv, caches and samples.png"

sample: $(SAMPLE_READY)
	@$(BIN)/fewstep sample --out $(CURDIR)/samples.png

test: $(TEST_READY)
	$(PYTEST) --durations=10

test-kernels: $(TEST_READY)
	$(PLAIN) $(PYTEST) $(NUMERICAL)

# Beside the newest one and in front of it: nothing else changes.
test-oldest-diffusers: $(TEST_READY)
	@test -d $(OLDEST)/diffusers || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(OLDEST) 'diffusers==0.35.*'
	PYTHONPATH=$(OLDEST) $(PYTEST) $(WITH_OLDEST)

lint: $(TEST_READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TEST_READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The variable silences mkdocs-material's notice about its successor.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation is $(CURDIR)/build/site/index.html"

wheel: $(BIN)/python
	PYTHON=$(BIN)/python scripts/check_wheel.sh

clean:
	rm -rf $(VENV) build dist samples.png .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find src tests benchmarks scripts examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone, so that nothing that follows chooses another build of it. torch-fidelity wants torchvision,
# which its Inception does not use: only the tests of Inception see it, for torchmetrics fails with the one alone.
$(SAMPLE_READY): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) torch
	$(INSTALL) -e '.[cli,diffusers]'
	@touch $@

$(DOCS_READY): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) torch
	$(INSTALL) -e '.[docs]'
	@touch $@

$(TEST_READY): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) torch
	$(INSTALL) -e '.[all,dev]'
	$(INSTALL) --no-deps --target $(VENV)/torch-fidelity torch-fidelity
	@touch $@
