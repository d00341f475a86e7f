package embedded_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/zkq/zkq/coord"
)

// BenchmarkFirstPut opens a store that is not there, puts and closes it.
func BenchmarkFirstPut(b *testing.B) {
	for i := 0; b.Loop(); i++ {
		put(b, b.TempDir()+"/q", i)
	}
}

// BenchmarkPutOnReopening does the same with a store that is there.
func BenchmarkPutOnReopening(b *testing.B) {
	dir := b.TempDir() + "/q"
	put(b, dir, -1)
	for i := 0; b.Loop(); i++ {
		put(b, dir, i)
	}
}

// BenchmarkPutBesideOwner does the same while another coordinator runs the store.
func BenchmarkPutBesideOwner(b *testing.B) {
	dir := b.TempDir() + "/q"
	owner, err := open(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	defer owner.Close()
	for i := 0; b.Loop(); i++ {
		put(b, dir, i)
	}
}

func put(b *testing.B, dir string, i int) {
	b.Helper()
	c, err := open(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	s, err := c.Session(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Commit(b.Context(), coord.Create(fmt.Sprintf("/b/%d", i), nil)); err != nil {
		b.Fatal(err)
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPutProcess is a whole process, alone with the store.
func BenchmarkPutProcess(b *testing.B) { benchmarkProcess(b, b.TempDir()+"/q") }

// BenchmarkPutProcessBesideOwner is a whole process, while another runs the store.
func BenchmarkPutProcessBesideOwner(b *testing.B) {
	dir := b.TempDir() + "/q"
	owner, err := open(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	defer owner.Close()
	benchmarkProcess(b, dir)
}

func benchmarkProcess(b *testing.B, dir string) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), roleEnv+"=put", dirEnv+"="+dir, argEnv+"=x")
		_, perr := cmd.StdinPipe() // its end would ask the process to leave
		if out, err := cmd.CombinedOutput(); err != nil || perr != nil {
			b.Fatalf("%v, %v: %s", err, perr, out)
		}
	}
}
