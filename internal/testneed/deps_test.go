package testneed_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zkq/zkq/internal/testneed"
)

// TestDepsFailsOnlyUnderCI: `make deps` fails for programs that it cannot install only with CI=true.
func TestDepsFailsOnlyUnderCI(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		testneed.Missing(t, "make deps", "install bash")
	}
	dirname, err := exec.LookPath("dirname")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir() // all there is on this PATH: no Java, no compiler, no package manager
	if err := os.Symlink(dirname, filepath.Join(bin, "dirname")); err != nil {
		t.Fatal(err)
	}
	for ci, want := range map[string]int{"": 0, "true": 1} {
		cmd := exec.Command(bash, "../../scripts/deps.sh")
		cmd.Env = []string{"PATH=" + bin, "ZOOKEEPER_HOME=" + bin, "CI=" + ci}
		out, err := cmd.CombinedOutput()
		code := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != want || !strings.Contains(string(out), "a Java runtime") {
			t.Errorf("CI=%q: exit %d, want %d\n%s", ci, code, want, out)
		}
	}
}
