// Package conformance is the test suite for implementations of package coord.
//
// A driver calls [Run] from one of its tests. The suite checks every promise of
// package coord in a subtest of its own, and no case knows which service it runs on.
// [Factory] tells the suite how to open clients. A client may implement hooks, such
// as [Cutter], by which the suite causes network faults:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Factory{
//			New:     func(t *testing.T) conformance.Service { return newService(t) },
//			Timeout: 4 * time.Second,
//			Without: []string{"Restart"}, // this service cannot be restarted
//		})
//	}
//
// The drivers of ZooKeeper and etcd and the store in package coordtest all pass it.
package conformance
