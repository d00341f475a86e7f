//go:build faults

package faults

import (
	"testing"

	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/internal/testetcd"
	"github.com/zkq/zkq/internal/testfleet"
)

// Helpers of package testcoord, by the names that the tests of this package use.
var (
	within     = testcoord.Within
	eventually = testcoord.Eventually
)

func TestMain(m *testing.M) {
	testetcd.Main()
	testfleet.Main()
	testcoord.Main(m)
}
