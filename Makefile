# Set-up, the quick start and the checks.  `make quickstart` and `make test` need a Python and nothing else.
VENV ?= .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready-$(shell cat requirements.txt requirements-data.txt requirements-ray.txt requirements-dev.txt | cksum | cut -d' ' -f1)
READY_TO_RUN := $(VENV)/.runs-$(shell cat requirements.txt requirements-gpu.txt | cksum | cut -d' ' -f1)
READY_FOR_PAGES := $(VENV)/.pages-$(shell cat requirements.txt requirements-data.txt | cksum | cut -d' ' -f1)
QUICK := data/quickstart

.PHONY: setup quickstart corpus URLS_and_OUT test test-slow bench lint clean

setup: $(READY_TO_RUN)
	@echo 'ready: run `. $(VENV)/bin/activate` first; `python3 tools/doctor.py` says what this machine has'

$(READY_TO_RUN): requirements.txt requirements-gpu.txt
	@VENV=$(VENV) sh tools/setup.sh requirements.txt
	@touch $@

$(READY_FOR_PAGES): requirements.txt requirements-data.txt $(READY_TO_RUN)
	@VENV=$(VENV) sh tools/setup.sh requirements-data.txt
	@touch $@

$(READY): requirements.txt requirements-data.txt requirements-ray.txt requirements-dev.txt $(READY_TO_RUN)
	@VENV=$(VENV) sh tools/setup.sh requirements-dev.txt
	@touch $@

# A vocabulary and shards from Python's own sources, some minutes of training, a sample.  Each part that is done is skipped.
# OPTIONS are those of the training, e.g. OPTIONS="--set max_steps=3000".
# Left out: installed packages, tests, and files that are tables rather than programs.
SOURCES := $(foreach name,site-packages dist-packages test tests idlelib lib2to3 encodings pydoc_data msilib,--exclude $(name))

quickstart: $(READY_TO_RUN)
	@$(PYTHON) -c 'import sysconfig; print("text: Python sources in", sysconfig.get_path("stdlib"))'
	@STDLIB=`$(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("stdlib"))'` && \
	$(PYTHON) encoder/train.py --input "$$STDLIB" $(SOURCES) --no_ftfy --size 4096 --output_dir $(QUICK)/encoder && \
	$(PYTHON) datasets/create_tfrecords.py --input "$$STDLIB" $(SOURCES) --no_ftfy --name python --eval_fraction 0.05 \
	    --encoder_path $(QUICK)/encoder --output_dir $(QUICK)
	@$(PYTHON) main.py --model configs/quickstart.json $(OPTIONS)
	@$(PYTHON) main.py --model configs/quickstart.json --predict_text "class" --length 200 --top_k 20 \
	    --temperature 0.8 --seed 1

# From lists of URLs to verified shards; OPTIONS are those of datasets/make_corpus.py.
corpus: URLS_and_OUT $(READY_FOR_PAGES)
	@$(PYTHON) datasets/make_corpus.py --urls $(URLS) --output_dir "$(OUT)" $(OPTIONS)

URLS_and_OUT:
	@test -n "$(URLS)" && test -n "$(OUT)" || { \
	    echo 'error: say from where and to where: make corpus URLS=urls.txt OUT=data/mine [OPTIONS="--name mine"]' >&2; exit 2; }

# A test process for each core; more than four would ask for much memory.
PYTEST := $(PYTHON) -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test: $(READY)
	@$(PYTEST) -m "not slow"

test-slow: $(READY)
	@$(PYTEST) --dist loadscope -m slow  # the last one counts; the blocks of test_docs.py need their order

# What has a peer or a bound, in one table; OPTIONS are those of `python3 -m benchmarks.every`.
bench: $(READY)
	@$(PYTHON) -m benchmarks.every $(OPTIONS)

lint: $(READY)
	@$(PYTHON) -m ruff check .

clean:
	rm -rf $(QUICK) runs/quickstart
