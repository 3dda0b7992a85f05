.PHONY: demo
demo: ## show what InstaSlice does, on a cluster of 1.36 or later without GPUs
	@demo/run.sh
