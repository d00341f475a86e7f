package tree

import (
	"os"
	"strings"
	"testing"
)

// A reader of the package's documentation finds a program to copy beside every type.
func TestEveryPublicTypeHasARunnableExample(t *testing.T) {
	text, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for name := range methods {
		_, body, ok := strings.Cut(string(text), "\nfunc Example"+name+"() {")
		body, _, _ = strings.Cut(body, "\n}\n")
		if !ok || !strings.Contains(body, "// Output:") {
			t.Errorf("%s has no runnable example", name)
		}
	}
}
