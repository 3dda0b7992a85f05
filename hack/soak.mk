SOAK_MINUTES ?= 10

.PHONY: soak
soak: $(VENV)/dev.stamp ## run the faults for SOAK_MINUTES=10 and print what they cost
	@SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/python hack/soak.py
