# Sluiceway: `make` lists the targets. `make run` and `make test` need Python 3.11+, make and nothing else.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

# The first of these that is Python 3.11 or newer; set PYTHON to choose another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# Of what is installed a run imports a part, which Python compiles then: all of it would take a minute or more.
# Where that is forbidden, each of the many processes of a run would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: help run test test-unit test-cluster test-airflow cluster cluster-down cluster-named demo bench compile lint \
	check-packages lint-packages install run-on-kfp images images-push images-lock image-bases image-envs sbom audit golden-diff check-ci check-infra golden docs dashboards clean stop

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/run.stamp ## train on real data and deploy the model on this machine
	@$(BIN)/sluiceway run train-and-deploy

# One process more than there are cores: many tests wait for servers.
test: $(VENV)/test.stamp ## run every test
	@$(BIN)/python -m pytest --numprocesses $$(( $$(nproc) + 1 )) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-unit: $(VENV)/test.stamp ## run the tests that start no processes
	@$(BIN)/python -m pytest tests/unit

cluster: $(VENV)/run.stamp ## make a local kind cluster with KFP, KServe and the suite (needs Docker and kind)
	@$(BIN)/python -m ci.cluster up

cluster-down: $(VENV)/run.stamp ## delete that cluster
	@$(BIN)/python -m ci.cluster down

# The cluster of `make cluster`, where no other is named.
test-cluster: KUBECONFIG ?= $(wildcard .sluiceway/cluster/kubeconfig)
test-cluster: cluster-named $(VENV)/test.stamp ## run the Kubernetes tests, and where KFP is installed the road, on a real cluster: KUBECONFIG=path
	@SLUICEWAY_TEST_KUBECONFIG="$(abspath $(KUBECONFIG))" $(BIN)/python -m pytest -m cluster

cluster-named:
	@test -n "$(KUBECONFIG)" || { echo "Name the cluster: make test-cluster KUBECONFIG=path/to/kubeconfig, or make cluster" >&2; exit 1; }

demo: $(VENV)/run.stamp ## the story in four acts: promoted, promoted, blocked, rolled back
	@$(BIN)/sluiceway demo

bench: $(VENV)/test.stamp ## measure speed and error rates; results go to tests/bench/RESULTS.md
	@$(BIN)/python -m tests.bench

compile: $(VENV)/run.stamp ## write every pipeline's package to build/
	@$(BIN)/sluiceway compile

lint: $(VENV)/test.stamp ## style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

install: $(VENV)/run.stamp ## make the environment, without what the tests need

lint-packages: install ## lint the packages in build/
	@$(BIN)/sluiceway lint $(if $(FORMAT),--format $(FORMAT)) build/*.yaml

check-packages: compile lint-packages ## compile the packages, lint them and compare them with the reviewed ones
	@diff --recursive --brief --exclude=README.md build tests/golden || { \
		echo "The compiled packages differ from tests/golden: review the change and accept it with 'make golden'." >&2; exit 1; }

golden-diff: compile ## write what changed in the packages since a commit to diff.md: BASE=origin/main
	@$(BIN)/python -m ci.golden_diff build --base "$(BASE)" --out diff.md

check-ci: ## lint the CI definitions and scripts, in an environment of its own (needs npm and Java for two of the linters)
	@PYTHON="$(PYTHON)" STRICT="$(or $(STRICT),0)" sh ci/check.sh

run-on-kfp: install ## run build/train-and-deploy.yaml on a KFP server and wait, as delivery does on staging: KEY=job's id
	@$(BIN)/sluiceway submit build/train-and-deploy.yaml --service-account sluiceway-deploy --set model_name=staging-check \
		--set 'deployment={"namespace": "models", "service_account": "sluiceway-server"}' --key "$(KEY)" --wait

# The commit's own time, so that the same commit makes the same bytes.
BAKE = COMMIT="$$(git rev-parse HEAD)" SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" \
	CREATED="$$(git log -1 --format=%cI)" docker buildx bake --file images/docker-bake.hcl

images: ## build the images (needs docker buildx): TARGETS=cpu for those without CUDA, CACHE=registry.example.com/cache
	@CACHE="$(CACHE)" $(BAKE) $(TARGETS)

images-push: ## build the images for every platform, push them, write their digests to build/images.json: REGISTRY=…
	@mkdir -p build && RELEASE=true CACHE="$(CACHE)" $(BAKE) --metadata-file build/images.json $(TARGETS)

images-lock: $(VENV)/run.stamp ## pin packages and overlays to the digests in build/images.json: images/lock.json, manifests/components/images
	@$(BIN)/python -m images.lock build/images.json

image-bases: $(VENV)/run.stamp ## pin the newest build of the Python that the images stand on (needs docker buildx)
	@$(BIN)/python -m images.bases

image-envs: $(VENV)/test.stamp ## install what images hold as their Dockerfile does, and use it: GROUPS="data serving"
	@$(BIN)/python -m images.environments $(GROUPS)

sbom: $(VENV)/run.stamp ## list what is installed (CycloneDX) in build/sbom, with a tool in an environment of its own
	@PYTHON="$(PYTHON)" sh images/audit.sh sbom

audit: ## look up known vulnerabilities of every pinned version, with a tool in an environment of its own
	@PYTHON="$(PYTHON)" sh images/audit.sh audit

test-airflow: $(VENV)/test.stamp ## run the DAG with a real Airflow, in an environment of its own, against a stand-in for KFP
	@PYTHON="$(PYTHON)" sh integrations/airflow/test.sh

check-infra: ## lint and validate Terraform (where its registry can be reached) and Ansible, in an environment of its own
	@test -x .venv-infra/bin/ansible-lint || { "$(PYTHON)" -m venv .venv-infra && .venv-infra/bin/python -m pip install --quiet ansible==14.5.0 ansible-lint==26.10.1; }
	@PATH="$(CURDIR)/.venv-infra/bin:$$PATH"; cd manifests/ansible && \
		ansible-playbook --inventory inventory.example.yml --syntax-check site.yml && ansible-lint --offline
	@if command -v terraform >/dev/null; then cd manifests/terraform && terraform fmt -check -diff && \
		terraform init -backend=false -input=false && terraform validate; \
	else echo "terraform is not installed: its files were held against the provider's schema by make test alone" >&2; fi

golden: $(VENV)/run.stamp ## accept the compiled packages as they are now (review the diff like code)
	@$(BIN)/sluiceway compile --out tests/golden

docs: $(VENV)/run.stamp ## write the page of each component from its own spec
	@$(BIN)/python docs/generate.py

dashboards: $(VENV)/test.stamp ## write the Grafana dashboards from their pages
	@$(BIN)/python manifests/monitoring/dashboards.py

stop: ## end the services on this machine and everything they started
	@if [ -x $(BIN)/sluiceway ]; then $(BIN)/sluiceway stop; else echo "nothing was running"; fi

clean: stop ## end the services, then remove the environment and all local state
	@rm -rf $(VENV) .venv-infra .venv-ci .venv-airflow .venv-audit .bench .sluiceway build .pytest_cache .mypy_cache .ruff_cache *.egg-info

# An environment is made anew only when what it is made from has changed.
$(VENV)/python.stamp: pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "Sluiceway needs Python 3.11 or newer: install it, or name one with make PYTHON=/path/to/python3" >&2; exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Sluiceway needs Python 3.11 or newer, and $(PYTHON) is not: name another with make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; a few minutes)…"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/run.stamp: $(VENV)/python.stamp
	@$(PIP) --editable .
	@touch $@

# All at once is sooner done than what a run needs first.
$(VENV)/test.stamp: $(VENV)/python.stamp
	@$(PIP) --editable '.[test]'
	@touch $(VENV)/run.stamp $@
