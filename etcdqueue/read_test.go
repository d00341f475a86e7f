package etcdqueue_test

import (
	"fmt"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// TestReadsAreRequestsOfMany reads more nodes than one transaction may name, also from a
// server with a lower limit.
func TestReadsAreRequestsOfMany(t *testing.T) {
	for name, most := range map[string]uint{"as usual": 0, "few ops": 20} {
		t.Run(name, func(t *testing.T) {
			cluster := testetcd.StartFor(t, 1, testetcd.Options{MaxTxnOps: most})
			s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
			var paths []string
			for i := range 200 {
				paths = append(paths, fmt.Sprintf("/q/%03d", i))
				if i%2 == 0 {
					commit(t, s, coord.Create(paths[i], fmt.Append(nil, i)))
				}
			}
			read := func() {
				t.Helper()
				nodes, err := s.Read(t.Context(), paths...)
				if err != nil || len(nodes) != len(paths) {
					t.Fatalf("%d nodes, %v", len(nodes), err)
				}
				for i, n := range nodes {
					switch {
					case i%2 == 1 && n.Path != "":
						t.Errorf("%s is there", n.Path)
					case i%2 == 0 && (n.Path != paths[i] || string(n.Value) != fmt.Sprint(i) || n.Fence == 0):
						t.Errorf("%s is %+v", paths[i], n)
					}
				}
			}
			read()
			before, err := testetcd.Requests(cluster.Endpoints()[0])
			if err != nil {
				t.Fatal(err)
			}
			read()
			after, err := testetcd.Requests(cluster.Endpoints()[0])
			if n := after["Txn"] - before["Txn"]; err != nil || n == 0 || n > map[bool]int{true: 4, false: 200/10 + 1}[most == 0] {
				t.Errorf("%d requests for 200 nodes, %v", n, err)
			}
		})
	}
}
