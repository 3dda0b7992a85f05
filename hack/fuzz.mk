# Coverage-guided fuzzing. What it finds worth keeping grows in .fuzz; what is worth keeping for
# good is put into test/fuzz/corpus, which pytest replays.

FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: $(VENV)/fuzz.stamp ## fuzz reviews, quantities and the socket, FUZZ_SECONDS=60 each
	@for target in review quantity; do \
		mkdir -p .fuzz/$$target; \
		$(BIN)/python -m test.fuzz $$target -max_total_time=$(FUZZ_SECONDS) -max_len=4096 \
			-timeout=10 -print_final_stats=1 -artifact_prefix=.fuzz/ \
			.fuzz/$$target test/fuzz/corpus/$$target || exit 1; \
	done
	@$(BIN)/python -m test.fuzz.fuzz_socket --seconds $(FUZZ_SECONDS)

$(VENV)/fuzz.stamp: setup.cfg | $(VENV)/bin/python
	$(PIP) --editable '.[fuzz]'
	@touch $@
