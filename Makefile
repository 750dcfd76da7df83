# `make demo`, `make test`, `make fast` and `make docs`. All make .venv and install what they need.
PYTHON ?= python3
BIN := .venv/bin
SHELL := bash

.PHONY: demo test fast test-processors docs lint clean

demo: .venv/run
	$(BIN)/edxdenoise demo --overwrite

# As many workers as cores: threads of linear algebra beside them would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest \
	--numprocesses auto --dist worksteal

test: .venv/test lint
	$(PYTEST) --doctest-modules

# What takes long is left out: whole reports and documents, processes, training.
fast: .venv/test
	$(PYTEST) -m "not slow" tests

# The numeric tests with the instructions of other processors, with and without oneDNN, and with one
# and two threads: eight runs, in which every two of these choices meet. Tests of processes make
# workers that do not depend on the instructions.
NUMERIC := tests/test_pca.py tests/test_nmf.py tests/test_neighbour.py tests/test_select.py \
	tests/test_split.py tests/test_quant_fit.py tests/test_quant_intensity.py tests/test_compare.py \
	tests/test_smoothing.py
AVX512 := $(shell grep -m1 -o avx512f /proc/cpuinfo)
# Core, oneDNN, threads.
COMBINATIONS := Haswell:0:1 Haswell:1:2 Nehalem:1:2 Nehalem:0:1 Zen:0:2 Zen:1:1 \
	$(if $(AVX512),SkylakeX:0:2 SkylakeX:1:1)

test-processors: .venv/test
	for each in $(COMBINATIONS); do \
		IFS=: read core onednn threads <<< "$$each"; \
		echo "$$core, oneDNN $$onednn, $$threads threads"; \
		OPENBLAS_CORETYPE=$$core NUMBA_CPU_NAME=generic \
		ONEDNN_MAX_CPU_ISA=SSE41 TF_ENABLE_ONEDNN_OPTS=$$onednn \
		OMP_NUM_THREADS=$$threads NUMBA_NUM_THREADS=$$threads TF_NUM_INTRAOP_THREADS=$$threads \
		$(BIN)/python -m pytest -q --numprocesses auto -k "not process" $(NUMERIC) || exit 1; \
	done

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

lint: .venv/test
	$(BIN)/black --check --quiet .
	$(BIN)/isort --check --quiet .
	$(BIN)/flake8
	$(BIN)/mypy

# The stamps are made anew when the dependencies change.
.venv/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/test: .venv/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[test]
	touch $@

.venv/docs: .venv/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[docs]
	touch $@

clean:
	rm -rf .venv demo site
