# Plain `make` prints the targets: the text after ## is their documentation.

.DEFAULT_GOAL := help
.PHONY: help demo deps bench-deps test check simulate mutants fuzz soak faults deep images up integration down headtohead bench counts build clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: build ## hash Go's own source tree with four workers, and kill one half way (no server needed)
	@scripts/demo.sh

deps: ## install what the tests use and this machine lacks, from the distribution's packages
	@scripts/deps.sh

bench-deps: ## the same, and the servers that make bench compares zkq with: Redis, beanstalkd, PostgreSQL
	@scripts/deps.sh bench

test: ## run every test this machine can run, and say which parts it could not; RACE=all: all under the race detector
	@RACE=$(RACE) scripts/test.sh

check: ## formatting, go vet and staticcheck
	@scripts/check.sh

simulate: ## SEEDS=N FIRST=M: that many schedules with faults, on a service in memory and in virtual time
	@SEEDS=$(SEEDS) FIRST=$(FIRST) scripts/simulate.sh

fuzz: ## each fuzz target for a while (FUZZTIME=15s); what fails is kept in testdata/fuzz
	@scripts/fuzz.sh

soak: ## put, take and finish CYCLES=50000 entries on each service, and cut clients off: nothing may grow; waiters wake in 50 ms
	@scripts/soak.sh

faults: ## kill, stop and cut off servers, links and workers of real clusters, and judge what was committed; ROUNDS=n, SHARE=0/3
	@ROUNDS=$(ROUNDS) SHARE=$(SHARE) scripts/faults.sh

mutants: ## the code with one thing wrong, many times over: each must be noticed by the simulation or a test; SHARE=0/4: a quarter
	@SHARE=$(SHARE) scripts/mutants.sh

deep: ## FIRST=M: all of the above for hours, and the row for docs/deep.md
	@SEEDS=$(SEEDS) FIRST=$(FIRST) scripts/deep.sh

images: ## build stand-ins for the images of docker-compose.yml, for machines that cannot pull them
	@scripts/images.sh

up: ## start three ZooKeeper and three etcd members in containers, and wait until they serve
	@scripts/up.sh

integration: ## test against the clusters of `make up`: the contract, then faults on both while workers run
	@SHARE=$(SHARE) scripts/integration.sh

down: ## remove the clusters of `make up` and all that they kept
	@scripts/down.sh

headtohead: ## 50 faults to kazoo's queue and the same to zkq's, and what each lost: ten minutes, and nothing else beside it
	@scripts/headtohead.sh

bench: ## zkq beside kazoo, etcd's recipes and brokers, each figure beside its target: ten minutes; BENCH=quick: six; BENCH=counts: one
	@scripts/bench.sh

counts: ## what an entry costs in requests, listings and lost claims, against the most that it may: a minute
	@scripts/counts.sh

build: ## bin/zkq
	@scripts/build.sh

clean: ## remove what the other targets made in this tree
	rm -rf bin
