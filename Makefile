# Two commands: `make demo` and `make test`. Both make .venv and install what they need.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/run
	$(BIN)/edxdenoise demo --overwrite

test: .venv/test lint
	$(BIN)/python -m pytest --doctest-modules

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
