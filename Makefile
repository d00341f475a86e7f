# Plain `make` prints the targets: the text after ## is their documentation.

.DEFAULT_GOAL := help
.PHONY: help demo deps bench-deps test check simulate mutants fuzz soak faults deep images up integration down headtohead bench counts build clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: build ## run four workers that hash Go's source tree, and kill one half way; needs no server
	@scripts/demo.sh

deps: ## install what the tests need and this machine lacks: Java, ZooKeeper's jars, kazoo, a C compiler (Debian, Ubuntu)
	@scripts/deps.sh

bench-deps: ## the same, and the servers that make bench compares zkq with: Redis, beanstalkd, PostgreSQL
	@scripts/deps.sh bench

test: ## run every test that this machine can run, and name the others; RACE=all: all under the race detector
	@RACE=$(RACE) scripts/test.sh

check: ## check formatting, and run go vet and staticcheck
	@scripts/check.sh

simulate: ## run SEEDS=N schedules with faults from seed FIRST=M on, on a service in memory and in virtual time
	@SEEDS=$(SEEDS) FIRST=$(FIRST) scripts/simulate.sh

fuzz: ## run each fuzz target for FUZZTIME=15s; failures are kept in testdata/fuzz
	@scripts/fuzz.sh

soak: ## put, take and finish CYCLES=50000 entries on each service, and cut clients off: nothing may grow
	@scripts/soak.sh

faults: ## kill, stop and cut off members and workers of real clusters, and check every commit; ROUNDS=n, SHARE=0/3
	@ROUNDS=$(ROUNDS) SHARE=$(SHARE) scripts/faults.sh

mutants: ## break the code in one place at a time: the simulation or a test must notice each; SHARE=0/4: a quarter
	@SHARE=$(SHARE) scripts/mutants.sh

deep: ## run all of the above for hours, from seed FIRST=M on, and print the row for docs/deep.md
	@SEEDS=$(SEEDS) FIRST=$(FIRST) scripts/deep.sh

images: ## build stand-ins for the images of docker-compose.yml, for machines that cannot pull them
	@scripts/images.sh

up: ## start three ZooKeeper and three etcd members in containers, and wait until they serve
	@scripts/up.sh

integration: ## run the conformance suite, then faults under load, on the clusters of `make up`
	@SHARE=$(SHARE) scripts/integration.sh

down: ## remove the clusters of `make up` and their data
	@scripts/down.sh

headtohead: ## let the same 50 faults happen to kazoo's queue and to zkq's: ten minutes, on an idle machine
	@scripts/headtohead.sh

bench: ## measure zkq beside kazoo, etcd's recipes and brokers: ten minutes, on an idle machine; BENCH=quick: six; BENCH=counts: one
	@scripts/bench.sh

counts: ## count requests, listings and lost claims per entry, and compare them with their limits: a minute
	@scripts/counts.sh

build: ## build bin/zkq
	@scripts/build.sh

clean: ## remove what the other targets made in this tree
	rm -rf bin
