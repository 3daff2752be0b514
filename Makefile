# Two commands on a fresh clone: `make demo` and `make test`. Python 3.11 or newer is all they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# PyTorch: empty takes the build for the CPU where there is no NVIDIA device. Else a requirement, such as torch==2.13.0.
TORCH ?=

.PHONY: demo test lowest check site bench gpu-small gpu-pack fuzz clean

$(BIN)/srcli: pyproject.toml weights.lock
	$(PYTHON) -m venv $(VENV)
	scripts/install-torch $(BIN)/python "$(TORCH)"
	$(BIN)/python -m pip install --disable-pip-version-check --editable .
	touch $@

$(VENV)/.dev: $(BIN)/srcli
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: $(BIN)/srcli
	mkdir -p out
	@$(BIN)/python scripts/demo.py

# A file's tests stay in one process, and files keep their order: long ones do not come last, when others are idle.
# Containers often forbid Python to keep compiled modules; every process that a test starts would compile srcli anew.
test: $(VENV)/.dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The commands on the lowest versions that pyproject.toml allows, in an environment of their own. PyTorch is the same
# as everywhere: builds of its lowest version for the CPU are not on PyPI. Old libraries warn of what is new.
LOWEST := $(VENV)-lowest
lowest:
	$(PYTHON) -m venv $(LOWEST)
	scripts/install-torch $(LOWEST)/bin/python "$(TORCH)"
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/python -m uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
	    --upgrade-package filelock --editable ".[heif,formats,train,metrics]" "pytest>=8.3" "hypothesis>=6.120"
	$(LOWEST)/bin/python -m pytest -o filterwarnings=default tests/cli/test_commands.py tests/batch/test_windows.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi

# The documents as a site in out/site; a page that is missing or not linked is an error.
site: $(VENV)/.dev
	$(BIN)/mkdocs build --quiet

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# What is carried to a GPU, with small networks on whatever is here, and with no package but those that it names.
gpu-small: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu.pack --out out/gpu-pack
	$(BIN)/python -m benchmarks.gpu.bare out/gpu-bare
	OUT=$(CURDIR)/out/gpu-small PYTHON=$(CURDIR)/out/gpu-bare/bin/python bash out/gpu-pack/run.sh --small

# One folder to carry to a machine with a GPU: PHOTOS and TEACHERS, where given, are for training.
gpu-pack: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu.pack $(if $(PHOTOS),--photos $(PHOTOS)) $(if $(TEACHERS),--teachers $(TEACHERS))

# Every parser of foreign bytes, for SECONDS; what is found is kept in out/fuzz.
SECONDS ?= 600
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

clean:
	rm -rf $(VENV) $(VENV)-lowest out build dist
