# Manifests that are the command line's own output; a test holds them equal.

.PHONY: manifests
manifests: $(VENV)/dev.stamp ## write hack/mig-*.yaml anew
	@$(BIN)/instaslice templates --resource-api v1alpha2 > hack/mig-profiles.yaml
	@for version in v1alpha3 v1beta1 v1beta2 v1; do \
		$(BIN)/instaslice templates --resource-api $$version > hack/mig-profiles-$$version.yaml; \
	done
	@$(BIN)/instaslice deviceclasses > hack/mig-deviceclasses.yaml
