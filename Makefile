# Two commands: `make app` starts the laboratory, `make test` checks everything. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8501

.PHONY: app test check lint types bench clean

app: $(VENV)/app.done
	@echo "Structural Priors: http://localhost:$(PORT)"
	@$(BIN)/streamlit run app.py --server.port $(PORT) --server.headless true

test: $(VENV)/dev.done lint types
	$(BIN)/python tests/browser/chromium.py
	$(BIN)/python -m pytest

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.done
	$(BIN)/mypy

bench: $(VENV)/dev.done
	@for file in benchmarks/[a-z]*.py; do name=$$(basename $$file .py); [ $$name = record ] && continue; \
		echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done
	$(BIN)/python -m benchmarks.record

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with 'make PYTHON=python3.12 app'."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/app.done: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev.done: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/app.done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
