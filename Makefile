# Two commands do everything: `make demo` and `make test`. GNU make 3.81 or newer, Linux and macOS.
PYTHON ?= python3
BIN = .venv/bin
INSTALLED = .venv/.installed

.DEFAULT_GOAL := help
EXTRAS = tensorflow ray mpi deepspeed

.PHONY: help demo test test-extras lint lab bench truth clean $(EXTRAS:%=test-%)
.PRECIOUS: .venv-extras/%/.installed

help:
	@echo "make demo    predict and measure four strategies; pictures and tables in demo/"
	@echo "make test    everything that is checked: ruff, mypy, tests, notebooks"
	@echo "make test-extras   the engines of TensorFlow, Ray, MPI and DeepSpeed, each in an environment of its own"
	@echo "make lint    ruff and mypy only"
	@echo "make lab     JupyterLab on the notebooks"
	@echo "make bench   the benchmarks; they print figures"
	@echo "make truth   predictions beside what was measured; tables and pictures in docs/truth/"
	@echo "make clean   remove what the other commands wrote (.venv and .venv-extras stay)"

demo: $(INSTALLED)
	$(BIN)/twoclocks demo

lab: $(INSTALLED)
	$(BIN)/twoclocks lab

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest notebooks --nbval --nbval-current-env \
	    --nbval-sanitize-with=notebooks/sanitize.cfg --nbval-cell-timeout=120

test-extras: $(EXTRAS:%=test-%)

$(EXTRAS:%=test-%): test-%: .venv-extras/%/.installed
	.venv-extras/$*/bin/python -m pytest tests/extras/test_$*.py

bench: $(INSTALLED)
	@for file in benchmarks/*.py; do \
	    echo "== $$file"; $(BIN)/python "$$file" || exit 1; \
	done

truth: $(INSTALLED)
	$(BIN)/python -m lab.truth docs/truth
	$(BIN)/python -m lab.truth here --out docs/truth

clean:
	rm -rf demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -path ./.venv -prune -o -path ./.venv-extras -prune -o -path ./.git -prune -o \
	    -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# Set up what is missing: anew when the list of dependencies has changed.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the dependencies into .venv (some minutes, once) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

.venv-extras/%/.installed: pyproject.toml constraints.txt constraints-extras.txt | $(BIN)/python
	@echo "Installing the extra $* into .venv-extras/$* (gigabytes and minutes, once) ..."
	@$(BIN)/python -m venv --clear .venv-extras/$*
	@.venv-extras/$*/bin/python -m pip install -q --disable-pip-version-check \
	    -c constraints.txt -c constraints-extras.txt -e ".[$*,test]"
	@touch $@

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "$(PYTHON) was not found. Install Python 3.11 or newer, or name it: make demo PYTHON=python3.12"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Two Clocks needs Python 3.11 or newer; $(PYTHON) is `"$(PYTHON)" -V 2>&1`." \
	         "Name a newer one: make demo PYTHON=python3.12"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@"$(PYTHON)" -m venv --clear .venv || { rm -rf .venv; echo "Making .venv failed; the reason stands above."; exit 1; }
