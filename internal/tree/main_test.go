package tree

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the tests in the module's directory.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
