# Two commands on a fresh clone: `make demo` and `make test`. Python 3.11 or newer is all they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A CPU build of torch is enough for everything below; set TORCH to another requirement for a GPU build.
TORCH ?= torch==2.13.0

.PHONY: demo test check bench gpu-small gpu-pack fuzz clean

$(BIN)/srcli: pyproject.toml weights.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.dev: $(BIN)/srcli
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: $(BIN)/srcli
	mkdir -p out
	$(BIN)/srcli upscale examples/cat.jpg --scale 4 -o out/cat_x4.png --overwrite

test: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# The program for a GPU, with small networks on whatever is here.
gpu-small: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu --small --out out/gpu-small

# One folder to carry to a machine with a GPU: PHOTOS and TEACHERS, where given, are for training.
gpu-pack: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu.pack $(if $(PHOTOS),--photos $(PHOTOS)) $(if $(TEACHERS),--teachers $(TEACHERS))

# Every parser of foreign bytes, for SECONDS; what is found is kept in out/fuzz.
SECONDS ?= 600
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

clean:
	rm -rf $(VENV) out build dist
