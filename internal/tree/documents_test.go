package tree

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/zkq/zkq/internal/layout"
)

// documents returns the paths of all Markdown files at the root and in docs.
func documents(t *testing.T) []string {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, matches...)
	}
	if len(paths) < 10 {
		t.Fatalf("only %d documents were found", len(paths))
	}
	return paths
}

// prose returns the lines of a document, with those of code blocks left empty.
func prose(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines, inCode := strings.Split(string(text), "\n"), false
	for i, line := range lines {
		isFence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if inCode || isFence {
			lines[i] = ""
		}
		inCode = inCode != isFence
	}
	return lines
}

// A table is for looking things up. Conditions and reasons belong in paragraphs under a heading.
func TestNoTableCellHasMoreThan30Words(t *testing.T) {
	separator := regexp.MustCompile(`(^|[^\\])\|`)
	for _, path := range documents(t) {
		for i, line := range prose(t, path) {
			if !strings.HasPrefix(line, "|") {
				continue
			}
			for _, cell := range strings.Split(separator.ReplaceAllString(line, "$1\x00"), "\x00") {
				if words := len(strings.Fields(cell)); words > 30 {
					t.Errorf("%s:%d: a cell of %d words: %.60s…", path, i+1, words, strings.TrimSpace(cell))
				}
			}
		}
	}
}

// anchors returns the anchors that GitHub gives a document's headings.
func anchors(t *testing.T, path string) map[string]bool {
	t.Helper()
	dropped, link := regexp.MustCompile(`[^\p{L}\p{N}\p{M}_ -]`), regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	names := make(map[string]bool)
	for _, line := range prose(t, path) {
		level := len(line) - len(strings.TrimLeft(line, "#"))
		if level == 0 || !strings.HasPrefix(line[level:], " ") {
			continue
		}
		title := strings.ToLower(strings.TrimSpace(link.ReplaceAllString(line[level:], "$1")))
		names[strings.ReplaceAll(dropped.ReplaceAllString(title, ""), " ", "-")] = true
	}
	return names
}

func TestLinksBetweenDocumentsResolve(t *testing.T) {
	link, code := regexp.MustCompile(`\]\(([^)\s]+)\)`), regexp.MustCompile("`[^`]*`")
	for _, path := range documents(t) {
		for i, line := range prose(t, path) {
			for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(line, "code"), -1) {
				file, anchor, _ := strings.Cut(m[1], "#")
				if strings.Contains(file, "://") || strings.HasPrefix(file, "mailto:") {
					continue
				}
				target := path
				if file != "" {
					target = filepath.Join(filepath.Dir(path), file)
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s:%d: links to %s, which does not exist", path, i+1, m[1])
				} else if anchor != "" && !anchors(t, target)[anchor] {
					t.Errorf("%s:%d: links to %s, which has no heading #%s", path, i+1, target, anchor)
				}
			}
		}
	}
}

// The pages for users list the reserved names.
func TestTheDocumentsListTheReservedNames(t *testing.T) {
	reserved, _ := layout.Reserved()
	for _, page := range []string{"layout.md", "cli.md"} {
		b, err := os.ReadFile(filepath.Join("docs", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range reserved {
			if !regexp.MustCompile("(?s)`entries`, `taken`.*`"+name+"`").Match(b) && name != "entries" && name != "taken" {
				t.Errorf("%s does not list %s, which no queue may be called", page, name)
			}
		}
	}
}

func TestPathsThatDocumentsNameExist(t *testing.T) {
	code := regexp.MustCompile("`(?:\\./)?((?:\\.ci|bench|cmd|codec|coord|docs|etcdqueue|integration|internal|lock|priority|retained|scripts|zkqueue)/[\\w./-]+)`")
	rootFile := regexp.MustCompile("^[0-9]\\. `([a-z]+\\.go)`")
	named := 0
	for _, path := range documents(t) {
		if path == "CHANGELOG.md" { // it also tells of paths that were
			continue
		}
		for i, line := range prose(t, path) {
			matches := code.FindAllStringSubmatch(line, -1)
			if path == filepath.Join("docs", "life-of-an-entry.md") {
				matches = append(matches, rootFile.FindAllStringSubmatch(line, -1)...)
			}
			for _, m := range matches {
				named++
				if _, err := os.Stat(m[1]); err != nil && !strings.Contains(m[1], "VERB") {
					t.Errorf("%s:%d: names %s, which does not exist", path, i+1, m[1])
				}
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d paths are named", named)
	}
}
