.PHONY: e2e
e2e: $(VENV)/dev.stamp ## test against a real control plane, of KUBEBUILDER_ASSETS
	@test -n "$$KUBEBUILDER_ASSETS" || { echo 'make: KUBEBUILDER_ASSETS names no folder; export KUBEBUILDER_ASSETS=$$(setup-envtest use -p path 1.34)' >&2; exit 1; }
	@$(BIN)/python -m pytest test/e2e $(PYTEST_ARGS)

.PHONY: bench-cluster
bench-cluster: $(VENV)/dev.stamp ## measure what InstaSlice adds to the creation of a pod, there
	@$(BIN)/python -m bench.cluster $(BENCH_ARGS)
