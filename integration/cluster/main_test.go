//go:build cluster

package cluster

import (
	"testing"

	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/internal/testfleet"
)

// Helpers of package testcoord, by the names that the tests of this package use.
var (
	within     = testcoord.Within
	eventually = testcoord.Eventually
)

func TestMain(m *testing.M) {
	testfleet.Main()
	testcoord.Main(m)
}
