# The commands are in .ci/run, one place for each.
.PHONY: all test race lint fuzz examples consumer bench

all:
	.ci/run

test race lint fuzz examples consumer:
	.ci/run $@

bench:
	go test -run '^$$' -bench . -benchmem ./...
