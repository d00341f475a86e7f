// Package testqueue has what tests of the queues share: processes on a service in memory and in virtual time, and
// coordinators that count, refuse or check requests.
package testqueue
