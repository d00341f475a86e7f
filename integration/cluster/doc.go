// Package cluster tests zkq against the clusters of docker-compose.yml: the contract on both services, then faults of members,
// networks and workers while queues are in use. Its tests need `make up` and the build tag cluster; `make integration` runs them.
package cluster
