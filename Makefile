# The commands of this project, for people and for CI.
.DEFAULT_GOAL := help
SHELL := /bin/bash
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
SECONDS_OF_CHAOS ?= 300
# Most of a test is waiting; each process has a broker and a database of its own.
TESTS_AT_A_TIME ?= $(shell n=$$((2 * $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2))); echo $$((n > 12 ? 12 : n)))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help:  ## List these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(STAMP): requirements/dev.txt pyproject.toml
	@echo "Setting up $(VENV); this is done once."
	@set -e; python=; for p in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if $$p -c '$(FITS)' 2>/dev/null; then python=$$(command -v $$p); break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11 to 3.13 is needed; say which: make PYTHON=/path/to/python3.11 …"; exit 1; \
	fi; \
	{ command -v uv >/dev/null \
	  && uv venv --quiet --allow-existing --python $$python $(VENV) \
	  && uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt \
	  && uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; } \
	|| { echo "Without uv, which takes a minute longer."; $$python -m venv $(VENV) \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; }
	@touch $(STAMP)

.PHONY: setup
setup: $(STAMP)  ## Make .venv with all packages, as locked

.PHONY: run
run: $(STAMP)  ## Run the aid-kit: services, relay, consumer, worker, Flower and a publisher (PULSAR=real: Apache Pulsar; PARTITIONS=4 RELAYS=2)
	@exec $(BIN)/python -m devstack run $(if $(filter real,$(PULSAR)),--real-pulsar) \
	  $(if $(PARTITIONS),--partitions $(PARTITIONS)) $(if $(RELAYS),--relays $(RELAYS))

.PHONY: services
services: $(STAMP)  ## Run the services alone (PULSAR=real: Apache Pulsar)
	@exec $(BIN)/python -m devstack up $(if $(filter real,$(PULSAR)),--real-pulsar)

.PHONY: test
test: $(STAMP) pulsar-jars  ## Run every test that this machine can (TESTS=path, or options of pytest)
ifdef TESTS
	$(BIN)/python -m pytest $(TESTS)
else
	@# Several at a time, since most of a test is waiting; chaos by itself, since it wants the machine.
	@# What failed beside others, on a machine that was busy, runs once more by itself: then it counts.
	$(BIN)/python -m pytest -n $(TESTS_AT_A_TIME) --dist loadgroup -m "not chaos" --durations=25 || { \
	  echo "Once more, one at a time: what fails here beside others is a fault all the same; look at it."; \
	  $(BIN)/python -m pytest -v --last-failed --last-failed-no-failures none -m "not chaos"; }
	$(BIN)/python -m pytest -m chaos
endif

.PHONY: pulsar-jars
pulsar-jars: $(STAMP)
	@$(BIN)/python -m devstack pulsar-jars || test -z "$$POSTROOM_REQUIRE_ALL"

.PHONY: check
check: $(STAMP)  ## Check format, style, types and the walls between rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(STAMP)  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(STAMP) pulsar-jars  ## Measure on real Pulsar: a table, and JSON in .devstack/benchmarks
	$(BIN)/python -m benchmarks $(BENCH)

.PHONY: chaos
chaos: $(STAMP) pulsar-jars  ## Torment relays and a cluster for five minutes, and count (SECONDS_OF_CHAOS, SEED, PARTITIONS=8 RELAYS=3, CHOICES="members=3 …")
	$(BIN)/python -m tests.chaos relay --seconds $(SECONDS_OF_CHAOS) $(if $(SEED),--seed $(SEED)) \
	  $(if $(PARTITIONS),partitions=$(PARTITIONS)) $(if $(RELAYS),relays=$(RELAYS)) $(CHOICES)

.PHONY: chaos-consumer
chaos-consumer: $(STAMP) pulsar-jars  ## The same for consumers
	$(BIN)/python -m tests.chaos consumer --seconds $(SECONDS_OF_CHAOS) $(if $(SEED),--seed $(SEED)) $(CHOICES)

.PHONY: lock
lock:  ## Lock the newest versions, with hashes (needs uv)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" pyproject.toml --extra encryption --extra flower --extra metrics --extra otel -o requirements/runtime.txt
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" requirements/dev.in pyproject.toml --extra encryption --extra flower --extra metrics --extra otel -o requirements/dev.txt
	for each in docs release; do uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" requirements/$$each.in -o requirements/$$each.txt; done

.PHONY: dist
dist: $(STAMP)  ## Build the wheel and the source archive
	rm -rf dist
	$(BIN)/python -m hatchling build

# Environments of their own: what they hold is no part of the package, nor of its tests.
DOCS := .devstack/docs
RELEASE := .devstack/release
$(DOCS)/.complete $(RELEASE)/.complete: .devstack/%/.complete: requirements/%.txt $(STAMP)
	@$(BIN)/python -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.PHONY: docs
docs: $(DOCS)/.complete  ## Build the documentation site, strictly, with MkDocs and with Zensical
	$(DOCS)/bin/mkdocs build --quiet --strict --site-dir .devstack/site
	$(DOCS)/bin/zensical build --strict

.PHONY: docs-serve
docs-serve: $(DOCS)/.complete  ## Show the documentation site while it is written
	$(DOCS)/bin/mkdocs serve

.PHONY: sbom
sbom: $(RELEASE)/.complete  ## Write the bill of materials of the image to dist/sbom.json (CycloneDX)
	@mkdir -p dist
	$(RELEASE)/bin/cyclonedx-py requirements requirements/runtime.txt --pyproject pyproject.toml --of JSON \
	  --output-reproducible -o dist/sbom.json

.PHONY: licences
licences: $(RELEASE)/.complete  ## List the licences of what the image has; an unknown one fails
	@$(BIN)/python -m venv --clear .devstack/runtime
	@.devstack/runtime/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	@$(RELEASE)/bin/pip-licenses --python .devstack/runtime/bin/python --from=mixed --order=license --fail-on "UNKNOWN"

.PHONY: audit
audit: $(RELEASE)/.complete  ## Ask PyPI for known vulnerabilities of what the image has
	$(RELEASE)/bin/pip-audit --strict --require-hashes --disable-pip -r requirements/runtime.txt

.PHONY: wheel
wheel: dist  ## Test the wheel, and the one built from the source archive, without the sources (PYTHONS="python3.11 …")
	$(BIN)/python -m devstack.wheels $(PYTHONS)

.PHONY: lowest
lowest: $(RELEASE)/.complete dist  ## Test the wheel with the lowest versions that pyproject.toml allows
	$(RELEASE)/bin/uv pip compile --quiet --resolution lowest-direct --python-version 3.11 --no-emit-index-url \
	  --all-extras pyproject.toml -o .devstack/lowest.txt
	$(BIN)/python -m devstack.wheels --constraints .devstack/lowest.txt

.PHONY: clean
clean:  ## Remove .venv, data, logs and caches
	rm -rf $(VENV) .devstack .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist site
