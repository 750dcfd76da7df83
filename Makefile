# Two commands: `make demo` and `make test`. Both make .venv and install what they need.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-processors lint clean

demo: .venv/run
	$(BIN)/edxdenoise demo --overwrite

test: .venv/test lint
	$(BIN)/python -m pytest --doctest-modules --numprocesses auto --dist worksteal

# The numeric tests with the instructions of other processors, and with one and two threads.
NUMERIC := tests/test_pca.py tests/test_nmf.py tests/test_neighbour.py tests/test_select.py \
	tests/test_split.py tests/test_quant_fit.py tests/test_quant_intensity.py tests/test_compare.py
CORES := Haswell Zen Nehalem $(if $(shell grep -m1 avx512f /proc/cpuinfo),SkylakeX)

test-processors: .venv/test
	for core in $(CORES); do for onednn in 0 1; do for threads in 1 2; do \
		echo "$$core, oneDNN $$onednn, $$threads threads"; \
		OPENBLAS_CORETYPE=$$core NUMBA_CPU_NAME=generic TF_ENABLE_ONEDNN_OPTS=$$onednn \
		OMP_NUM_THREADS=$$threads NUMBA_NUM_THREADS=$$threads TF_NUM_INTRAOP_THREADS=$$threads \
		$(BIN)/python -m pytest -q $(NUMERIC) || exit 1; \
	done; done; done

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

clean:
	rm -rf .venv demo
