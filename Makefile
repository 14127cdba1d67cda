# `make help` lists the targets, and `make help adapt` the options of one. The variables of this file are in capitals; any other key=value typed after `make` is an
# option of the commands. The program reads those from the environment's MAKEFLAGS, so that no shell ever sees them.

PYTHON ?= python3
VENV   ?= .venv

COMMANDS := plan pretrain adapt finetune ensemble evaluate export predict serve report push sweep sweep-report study runs compare clean-runs new-task check-data select doctor
WORKERS  := -n auto --dist loadfile
MKDOCS    = NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
GOALS    := $(filter $(COMMANDS),$(MAKECMDGOALS))

# make would expand the $(...) in an option's value on its way into the environment, where nobody wants it.
unexport $(foreach v,$(.VARIABLES),$(if $(findstring command,$(origin $v)),$(if $(findstring $$,$(value $v)),$v)))

PIP := $(VENV)/bin/python -m pip

# Whether a torch is there that pyproject.toml is content with: pip tells, when it may fetch nothing.
has_torch = PIP_CONFIG_FILE=/dev/null $(PIP) --isolated install --dry-run --no-deps --no-index \
	"$$(sed -n 's/^ *"\(torch>=[^"]*\)".*/\1/p' pyproject.toml)" >/dev/null 2>&1
needs_no_cuda = test "$$(uname -sm)" = "Linux x86_64" -a ! -e /dev/nvidia0 && ! command -v nvidia-smi >/dev/null

# $(call pip_install,WHAT) leaves such a torch as it is, whatever constraints.txt pins. It keeps what pip says in a file,
# and shows the end of it when pip fails. seqeval comes as source, and pip before 23.1 would build it by a way that fails.
# Meanwhile it tells every five seconds what pip is at, and how much it has fetched or found in its cache.
PIP_LOG     = $(VENV)/pip.log
pip_tells   = awk '/^ *(Downloading|Using cached)/ && match($$0, /\([0-9.]+ [kM]B\)/) { split(substr($$0, RSTART + 1), size, " "); \
	fetched += size[1] / (size[2] ~ /k/ ? 1000 : 1) } NF { last = substr($$0, 1, 60) } \
	END { printf "  %d s, %d MB so far: %s\n", waited, fetched, last }' waited=$$waited $(PIP_LOG)
pip_install = sed "$$(! $(has_torch) || echo '/^torch==/d')" constraints.txt >$(VENV)/constraints.txt \
	&& { $(PIP) install --use-pep517 -c $(VENV)/constraints.txt -e $1 >$(PIP_LOG) 2>&1 & pip=$$!; waited=0; \
		while sleep 1; kill -0 $$pip 2>/dev/null; do \
			waited=$$((waited + 1)); test $$((waited % 5)) -ne 0 || $(pip_tells); done; wait $$pip; } \
	|| { tail -n 20 $(PIP_LOG); echo "pip failed: the whole of what it said is in $(PIP_LOG)"; exit 1; }

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup $(COMMANDS) test bench docs check format dist

help: # alone: one screen, of 24 lines of 80; `make help adapt` leaves all to the command
ifeq ($(GOALS),)
	@awk -F ' *:.*## ' '/^[a-z_-]+ *:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'Typed together: one run. Options: make help adapt. To develop: CONTRIBUTING.md'
else
	@:
endif

setup: $(VENV)/installed ## make the environment in .venv; the others do so too
	@echo "the environment in $(VENV) is ready"

plan:          ## tell what would run, why, and in what time; run nothing
pretrain:      ## train a language model from random weights
adapt:         ## train the pretrained model on your unlabelled text
finetune:      ## train it on your labels, and measure it
ensemble:      ## average the answers of finished models, as one
evaluate:      ## score a finished model on other rows
predict:       ## answer texts with a finished model
export:        ## write the model as ONNX, in full and in 8 bits
serve:         ## answer over HTTP, with a page to try it on
report:        ## write a page on a finished run, or on several
push:          ## put the model on the Hugging Face Hub
sweep:         ## try many values of the options
sweep-report:  ## tell what a sweep has found so far
study:         ## tell what adaptation is worth, over seeds and labels
runs:          ## list models by their scores, and all that was made
compare:       ## say what runs differ by: names=[a,b]
clean-runs:    ## list what no name needs any more, and remove it
new-task:      ## write a file's YAML: path=reviews.csv name=reviews
check-data:    ## list labelled rows that look wrong
select:        ## pick the texts to label next, as a spreadsheet
doctor:        ## print what an issue should say about this machine

# The first command typed runs them all, in the order typed.
$(COMMANDS): $(VENV)/installed
	@$(if $(filter $@,$(firstword $(GOALS))),$(VENV)/bin/ulmfit-style $(GOALS) $(if $(filter help,$(MAKECMDGOALS)),--help) --from-make,:)

test: $(VENV)/installed-dev # run the tests, but for the slow ones
	@$(VENV)/bin/pytest $(WORKERS)

bench: $(VENV)/installed-dev # measure the speed beside plain transformers: docs/speed.md
	@$(VENV)/bin/python bench/speed.py

docs: $(VENV)/installed-docs # build the documentation into site/, whose index.html opens from the disk
	@$(MKDOCS)

check: $(VENV)/installed-dev $(VENV)/installed-docs # all that has to pass before a change goes in: format, lint, types, docs, and the tests of make test
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/mypy
	@$(MKDOCS)
	@$(VENV)/bin/pytest $(WORKERS)

dist: $(VENV)/installed-dev # the wheel and the source as one file, in dist/
	@$(VENV)/bin/python -m hatchling build

format: $(VENV)/installed-dev # format the code, and mend what the linter can
	@$(VENV)/bin/ruff format
	@$(VENV)/bin/ruff check --fix

# These files are stamps: while they are newer than what they depend on, nothing is installed.
$(VENV)/installed: pyproject.toml constraints.txt ulmfit_style/embedded.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "setup needs Python 3.11 or newer, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)"; \
		     echo "name another one: make setup PYTHON=python3.12"; exit 1; }
	@echo "setup 1/3: a Python environment in $(VENV)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --version >/dev/null 2>&1 || $(VENV)/bin/python -m ensurepip >/dev/null
	@if $(has_torch); then echo "setup 2/3: transformers and the rest; the torch that is there stays"; \
	else echo "setup 2/3: torch, transformers and the rest: at first 370 MB to download (with CUDA about 2.5 GB more)"; \
		if $(needs_no_cuda); then \
			echo "  There is no NVIDIA driver here. Should this bring CUDA all the same, for the small build stop it and type:"; \
			echo "  make setup PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"; \
		fi; fi
	@$(call pip_install,.)
	@echo "setup 3/3: the model and the data of the shipped recipes"
	@$(VENV)/bin/ulmfit-style setup
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "setup: pytest, ruff, mypy, ONNX and a notebook's kernel: at first 85 MB to download"
	@$(call pip_install,".[dev]")
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	@echo "setup: mkdocs: at first 15 MB to download"
	@$(call pip_install,".[docs]")
	@touch $@
