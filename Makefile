# Every target prepares .venv by itself; in an active conda environment use `dvc repro` and `pytest` directly.
PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
ONLY   ?=              # stages to make, with what they read, such as ONLY=gap or ONLY=page,gating; if not, all
ENGINE ?=              # where stages run if not here, such as ENGINE="slurm partition=gpu gpus_per_node=1"
STAMP  := $(VENV)/.installed
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: repro smoke test bench paper book exercises lab env lock
repro: env            # every figure of the profile named in params.yaml, JOBS stages at a time (on a GPU: JOBS=1)
	@python -m lib repro $(JOBS) $(ONLY:%=only=%) $(ENGINE)
	@python -m lib figures $(ONLY)

smoke: env            # the whole pipeline, tiny, in a copy of this tree: seven to ten minutes of two cores
	python -m lib smoke

test: env             # lib, the notebooks, and one run of `smoke` in a clone
	ruff check .
	dvc repro -q data.dvc
	pytest -q -n 2 --dist loadfile --no-loadscope-reorder

bench: env            # how fast training is on this machine, beside a plain loop: a few minutes
	@python -m lib bench

paper: env            # the methods on CIFAR-10: hours on a GPU; options as PAPER="methods=pgd,trades seeds=0,1,2"
	@python -m lib paper $(PAPER)

book: env             # executed notebooks, figures and claims as one site, for reading offline: half a minute
	@python -m lib book $(PROFILE)

exercises: env        # the chapters without their solutions and hidden tests, for students
	@python -m lib exercises

lab: env
	jupyter lab notebooks

env: $(STAMP)
$(STAMP): environment.yml pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	awk '/- pip:/ {f = 1; next} f {sub(/^ *- */, ""); sub(/ +#.*/, ""); print}' environment.yml > .requirements.txt
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check "uv>=0.13,<1" && \
	  $(VENV)/bin/uv pip install -q --python $(VENV)/bin/python -r .requirements.txt || \
	  $(VENV)/bin/python -m pip install -q -r .requirements.txt
	rm .requirements.txt && touch $@

lock: env             # exact versions of the dependencies in pyproject.toml
	uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate pyproject.toml -o constraints.txt
