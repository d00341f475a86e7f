package zkq_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryPromiseNamesTestsThatExist reads the table in docs/guarantees.md.
func TestEveryPromiseNamesTestsThatExist(t *testing.T) {
	exists := make(map[string]bool) // tests, their parts, and cases of the contract
	found := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(|\{name: "(\w+)"|\{"([\w ]+)", `)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") && filepath.Dir(path) != filepath.Join("coord", "coordtest", "conformance") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range found.FindAllSubmatch(b, -1) {
			exists[string(m[1])+string(m[2])+string(m[3])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join("docs", "guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	proofs := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if id, _, _ := strings.Cut(cells[0], " "); regexp.MustCompile(`^R\d+$`).MatchString(id) {
			proofs[id] = cells[len(cells)-1]
		}
	}
	for n := 1; n <= 25; n++ {
		id := fmt.Sprintf("R%d", n)
		names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(proofs[id], -1)
		if len(names) == 0 {
			t.Errorf("%s names no test: %q", id, proofs[id])
		}
		for _, name := range names {
			for _, part := range strings.Split(name[1], "/") {
				if !exists[part] {
					t.Errorf("%s is held up by %s, and %s does not exist", id, name[1], part)
				}
			}
		}
	}
}
