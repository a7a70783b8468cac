# The commands are in .ci, one place for each.
export PACKAGES RUN COUNT TIME
.PHONY: all test race lint fuzz examples consumer bench

all:
	.ci/run

test race lint fuzz examples consumer:
	.ci/run $@

# Compares with the previous commit. Variables select: make bench BASE=main PACKAGES=./internal/mvcc RUN=Put COUNT=10
bench:
	.ci/benchmarks $(BASE)
