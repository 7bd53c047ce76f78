# Every target may be run again at any time. PYTHON=... chooses the interpreter of .venv.
.PHONY: setup test bench demo up down lint

STAMP = .venv/.installed

setup: $(STAMP)

# Installs again only when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	@if [ ! -x .venv/bin/python ]; then \
		for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
			if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
				echo "creating .venv with $$python"; \
				exec "$$python" -m venv .venv; \
			fi; \
		done; \
		echo "make: Python 3.11 or newer is needed; name one with PYTHON=..." >&2; \
		exit 1; \
	fi
	.venv/bin/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

# Each process has an MLflow, a Prefect and a PostgreSQL of its own; a file's tests stay together.
TEST_PROCESSES ?= 2

test: setup
	.venv/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

# Takes about an hour on a quiet machine and needs the Debian package wrk; ARGS="--quick" to try it.
bench: setup
	.venv/bin/python -m benchmarks $(ARGS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

demo: setup
	.venv/bin/signalbox demo

up: setup
	.venv/bin/signalbox up

down: setup
	.venv/bin/signalbox down
