# The image, and its deployment to the cluster that kubectl is set to.
#
#   make docker-build docker-push IMG=registry.example.com/instaslice:1.0
#   make deploy IMG=registry.example.com/instaslice:1.0
#   make deploy IMG=... COMPONENTS="own-certificates prometheus"

IMG ?= instaslice:latest
# docker or podman; docker-buildx needs docker.
CONTAINER_TOOL ?= docker
KUBECTL ?= kubectl
PLATFORMS ?= linux/amd64,linux/arm64
# Folders of config/components that go on top of config/base.
COMPONENTS ?= cert-manager

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' instaslice/__init__.py)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BUILD_ARGS = --file Containerfile --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION)

.PHONY: docker-build
docker-build: ## build the image IMG for this machine's platform, with CONTAINER_TOOL (docker, podman)
	$(CONTAINER_TOOL) build $(BUILD_ARGS) --tag $(IMG) .

.PHONY: docker-push
docker-push: ## push the image IMG
	$(CONTAINER_TOOL) push $(IMG)

.PHONY: docker-buildx
docker-buildx: ## build and push IMG for PLATFORMS, with an SBOM and provenance (needs docker)
	docker buildx build $(BUILD_ARGS) --platform $(PLATFORMS) --tag $(IMG) \
	  --sbom=true --provenance=mode=max --push .

.PHONY: lock
lock: $(VENV)/dev.stamp ## choose anew what goes into the image beside InstaSlice: requirements.lock
	$(BIN)/python hack/lock.py

.PHONY: image-test
image-test: $(VENV)/dev.stamp ## build the image for both platforms and run it as a pod, without any registry (as root)
	$(BIN)/python -m pytest --capture=no hack/image_test.py

# The kustomization that chooses the components is made in a folder that git ignores.
.PHONY: build-installer
build-installer: ## write dist/install.yaml: what `make deploy` deploys, for IMG and COMPONENTS
	@mkdir -p dist/kustomize
	@printf '%s\n' 'resources: [../../config/base]' 'components:' \
	  $(COMPONENTS:%='- ../../config/components/%') >dist/kustomize/kustomization.yaml
	@$(KUBECTL) kustomize dist/kustomize >dist/kustomize/all.yaml
	sed 's|image: instaslice:latest$$|image: $(IMG)|' dist/kustomize/all.yaml >dist/install.yaml

.PHONY: deploy
deploy: build-installer ## deploy IMG with COMPONENTS to the cluster that kubectl is set to
	$(KUBECTL) apply --filename dist/install.yaml
	$(KUBECTL) --namespace instaslice-system rollout status deployment/instaslice --timeout 3m

.PHONY: undeploy
undeploy: ## take InstaSlice from the cluster that kubectl is set to
	@# First, so that no pod is refused while the rest goes.
	$(KUBECTL) delete mutatingwebhookconfiguration instaslice --ignore-not-found
	$(KUBECTL) delete clusterrole,clusterrolebinding instaslice --ignore-not-found
	$(KUBECTL) delete namespace instaslice-system --ignore-not-found

SERVICE := instaslice.instaslice-system.svc

.PHONY: own-certificates
own-certificates: ## make a certificate for a try, good for a year, for the component own-certificates
	cd config/components/own-certificates && openssl req -x509 -days 365 -noenc \
	  -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=$(SERVICE) \
	  -addext subjectAltName=DNS:$(SERVICE) -addext extendedKeyUsage=serverAuth \
	  -keyout tls.key -out tls.crt && cp tls.crt ca.crt
