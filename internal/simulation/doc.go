// Package simulation runs the production queues, unchanged, against the in-memory service in virtual time. A seed
// decides everything that can go either way: which request arrives next, which answer is lost, which client is cut off
// and which process dies. Afterwards models and invariants judge what the service committed and what each caller was
// told. All of it is in test files:
//
//	go test ./internal/simulation                                           # some thousand seeds
//	go test ./internal/simulation -run 'TestSimulation$' -sim.seed 1130 -v  # one seed, step by step
//
// A seed that fails is printed with the smallest schedule that fails in the same way, and the flags that run it again.
// make simulate runs many seeds, and make mutants checks that the simulation and the tests notice defects of the code:
// see docs/testing.md.
package simulation
