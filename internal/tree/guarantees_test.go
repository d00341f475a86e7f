package tree

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryPromiseNamesTestsThatExist reads docs/guarantees.md: a heading for each promise, and under it a line that names its tests.
func TestEveryPromiseNamesTestsThatExist(t *testing.T) {
	exists := make(map[string]bool) // tests, their parts, and cases of the contract
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(|\{name: "(\w+)"|\{"([\w ]+)", `)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		inSuite := strings.HasPrefix(path, filepath.Join("coord", "coordtest")) && strings.HasSuffix(path, ".go")
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") && !inSuite {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
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
	tests, id := make(map[string]string), ""
	heading := regexp.MustCompile(`^### (R\d+): \w`)
	for line := range strings.Lines(string(b)) {
		if m := heading.FindStringSubmatch(line); m != nil {
			id = m[1]
		} else if strings.HasPrefix(line, "#") {
			id = ""
		}
		if names, ok := strings.CutPrefix(line, "Tests: "); ok {
			tests[id] += names
		}
	}
	for n := 1; n <= 25; n++ {
		id := fmt.Sprintf("R%d", n)
		names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(tests[id], -1)
		if len(names) == 0 {
			t.Errorf("%s names no test: %q", id, tests[id])
		}
		for _, name := range names {
			for _, part := range strings.Split(name[1], "/") {
				if !exists[part] {
					t.Errorf("%s names the test %s, and %s does not exist", id, name[1], part)
				}
			}
		}
	}
}
