// Package faults puts zkq's queues through faults of servers, networks and processes, all of them real, on this machine alone
// and without root: clusters of three processes each whose every connection goes through a proxy. What the services committed
// is the judge. Its tests need the build tag faults; `make faults` runs them.
package faults
