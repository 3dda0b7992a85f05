.PHONY: bench
bench: $(VENV)/dev.stamp ## measure InstaSlice beside a server that does nothing (needs wrk)
	@$(BIN)/python -m bench.bench $(BENCH_ARGS)
