// Package testshare selects a share of a long list of tests. Checks before each change run one share, chosen by the commit,
// so that successive commits cover the whole list; the long checks run all of it.
package testshare

import (
	"fmt"
	"os"
	"testing"
)

// Variable names the environment variable that selects a share: "2/5" is the third of five shares, counted from 0.
// Unset or empty selects everything.
const Variable = "ZKQ_TEST_SHARE"

// Of returns the items of the selected share, in their order. It fails t if the variable cannot be parsed.
func Of[T any](t testing.TB, items []T) []T {
	t.Helper()
	index, count, err := parse(os.Getenv(Variable))
	if err != nil {
		t.Fatal(err)
	}
	var share []T
	for i, item := range items {
		if i%count == index {
			share = append(share, item)
		}
	}
	return share
}

// Whole reports whether everything is selected.
func Whole() bool { return os.Getenv(Variable) == "" }

func parse(value string) (index, count int, err error) {
	if value == "" {
		return 0, 1, nil
	}
	n, err := fmt.Sscanf(value, "%d/%d", &index, &count)
	if err != nil || n != 2 || value != fmt.Sprintf("%d/%d", index, count) || index < 0 || index >= count {
		return 0, 0, fmt.Errorf("%s=%s: want INDEX/COUNT with INDEX from 0 to COUNT-1, such as 2/5", Variable, value)
	}
	return index, count, nil
}
