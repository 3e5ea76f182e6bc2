# make demo: models trained in minutes, offline, and a page of miniatures.   make test: all checks and tests.
# make demo-all: one score of every model of the catalogue, as miniatures, without other sizes of one.
# Both need Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := uv$(shell sed -n 's/^required-version = "\(.*\)"/\1/p' pyproject.toml)
SOURCES := workflow_scripts tests envs schemas benchmarks
RULES := Snakefile rules/*.smk
# nothing is fetched behind a user's back, and no package of the user's own shadows a pinned one
export HF_HUB_OFFLINE ?= 1
export PYTHONNOUSERSITE := 1

.PHONY: demo demo-all data download test test-narrow soak fuzz lint lock reference rulegraph clean-demo

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diffalign needs Python 3.11 or newer; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/snakemake --profile profiles/demo --quiet rules
	@if [ ! -f demo/report.html ] || \
	  [ -n "$$(find demo/results/figures demo/results/tables report config.yaml catalogue profiles/digits profiles/demo -newer demo/report.html)" ]; then \
	  $(BIN)/snakemake --profile profiles/demo --report report.html --quiet all; fi
	@echo
	@echo "The demo is done. What models trained on 4,000 digits show on 1,000 held-out ones (95 % intervals, each by itself):"
	@echo
	@fold -s -w 114 demo/results/findings.txt | sed 's/^/  /'
	@echo
	@echo "  demo/report.html                                      everything on one page, offline"
	@echo "  demo/results/figures/training                          losses"
	@echo "  demo/results/figures/digits/clean/training_maps        step x layer maps of alignment"
	@echo "  demo/results/figures/digits/clean/through_training     alignment and quality of samples through training"
	@echo "  demo/results/figures/digits/clean/atlas                layer x noise level maps, beside controls"
	@echo "  demo/results/figures/digits/clean/samples              samples of every checkpoint"
	@echo "  demo/results/figures/dynamics                          from noise to image: frequencies, features, layers"
	@echo "  demo/results/figures/shared_space                      tokens and layers of two models in one space"
	@echo "  demo/results/tables/findings.tsv                       the sentences above with their numbers"
	@echo "Miniatures of published architectures, with random weights (they show the workflow, not results):"
	@echo "  demo/results/figures/photographs/clean/layer_maps      layer x layer heat maps"
	@echo "  demo/results/cknna/dinov2_vs_sd3_b8.npy                one score, its recipe beside it (.json)"

# one score of every model of the catalogue but other sizes and checkpoints of one
demo-all: $(VENV)/.installed
	$(BIN)/snakemake --profile profiles/demo --quiet rules -- all_models
	@echo
	@echo "Every model of the catalogue ran, as a miniature, but for other sizes and checkpoints of one: demo/results/cknna"

# files of people that may be downloaded; where the others are to be asked for
data: $(VENV)/.installed
	$(BIN)/python workflow_scripts/download_data.py $(STUDY)

# all that a study downloads, with its sha256; what runs after it needs no network. make download PROFILE=profiles/slurm,
# or for a study of your own CONFIGFILES='config.yaml mine.yaml'
PROFILE := profiles/local
STUDY = $(if $(CONFIGFILES),--configfile $(CONFIGFILES))
DOWNLOADS := weights untrained_configuration hub_table archive fetch_features
download: data
	HF_HUB_OFFLINE=0 $(BIN)/snakemake --profile $(PROFILE) $(STUDY) --until $(DOWNLOADS)

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# numbers must not depend on the processor: tests against known numbers with the narrowest instruction sets, on one thread
KNOWN := golden or published or known or equal or agree or parity
NUMERIC := tests/alignment tests/extraction tests/human tests/models tests/shared_space tests/stimuli tests/test_conditions.py
test-narrow: $(VENV)/.installed
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not workflow" -k "$(KNOWN)" $(NUMERIC)

# fifty kills at random times over a small study: its files must be those of an undisturbed run
KILLS := 50
soak: $(VENV)/.installed
	PYTHONPATH=tests:workflow_scripts $(BIN)/python tests/crash/kills.py --kills $(KILLS) $(if $(SEED),--seed $(SEED))

# every fuzzer for this many seconds; the tests run each for a few deterministic examples
FUZZ_SECONDS ?= 300
fuzz: $(VENV)/.installed
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/fuzz --capture=no

lint: $(VENV)/.installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/snakefmt --check --line-length 120 $(RULES)
	$(BIN)/mypy
	$(BIN)/mypy workflow_scripts/*.py
	PYTHONPATH=workflow_scripts $(BIN)/lint-imports --no-cache
	$(BIN)/snakemake --lint

# after a change of pyproject.toml
lock: $(VENV)/.installed
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate pyproject.toml --output-file requirements.lock
	$(BIN)/python envs/derive.py

# after a change of a key of the configuration, or of a profile of a published study: the JSON schema, docs/config.md and
# the tables of docs/reproduce.md
reference: $(VENV)/.installed
	$(BIN)/python schemas/derive.py
	$(BIN)/python schemas/derive_parity.py

# an image model, an autoencoder, a diffusion model and a language model, one node each; without trained models, which
# have a rule each and would hide the rest
FOUR_MODELS := 'study={models: [dinov2, sdvae, sd3, bloom560m], pairs: all}' 'se_cknna={pairs: [dinov2_vs_sdvae]}'

# after a change of the rules; needs graphviz
rulegraph: $(VENV)/.installed
	$(BIN)/snakemake --profile profiles/demo --configfile config.yaml profiles/demo/study.yaml --rulegraph \
	  --config $(FOUR_MODELS) 2>/dev/null > docs/rulegraph.dot
	dot -Tsvg -Grankdir=LR docs/rulegraph.dot | tr '\n' ' ' > docs/rulegraph.svg

clean-demo:
	rm -rf demo
