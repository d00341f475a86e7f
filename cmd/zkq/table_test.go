package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// Help fits a terminal of 80 columns.
func TestHelpFitsATerminal(t *testing.T) {
	s := newShell(t)
	lines := []string{"help"}
	for _, v := range verbs() {
		if !v.hidden {
			lines = append(lines, "help "+v.name)
		}
	}
	for _, line := range lines {
		for shown := range strings.Lines(s.run("", strings.Fields(line)...).stdout) {
			if shown = strings.TrimSuffix(shown, "\n"); textWidth(shown) > helpWidth {
				t.Errorf("zkq %s: %d columns: %s", line, textWidth(shown), shown)
			}
		}
	}
}

// The last columns share what the others leave.
func TestRowsAreCutToTheTerminal(t *testing.T) {
	for _, c := range []struct {
		widths     []int
		cut, width int
		want       []int
	}{
		{[]int{10, 20}, 1, 80, []int{10, 20}},
		{[]int{10, 100}, 1, 80, []int{10, 68}},
		{[]int{10, 100, 100}, 2, 80, []int{10, 33, 33}},
		{[]int{10, 5, 100}, 2, 80, []int{10, 5, 61}},
		{[]int{10, 100, 5}, 2, 80, []int{10, 61, 5}},
		{[]int{90, 100}, 1, 80, []int{90, leastWidth}},
	} {
		got := slices.Clone(c.widths)
		if narrowColumns(got, c.cut, c.width); !slices.Equal(got, c.want) {
			t.Errorf("%v, the last %d of them in %d columns: %v, want %v", c.widths, c.cut, c.width, got, c.want)
		}
	}
	for text, want := range map[string]string{"short": "short", "exactly8": "exactly8", "nine long": "nine lo…", "日本語日本": "日本語…", "é́́́́́́́́́": "é́́́́́́́́́"} {
		if got := cutText(text, 8); got != want {
			t.Errorf("%q in 8 columns is %q, want %q", text, got, want)
		}
	}
}

// ls shows the part of a name that no other of its queue has, and every verb takes it.
func TestShortNamesAreTheEndsOfNames(t *testing.T) {
	for name, want := range map[string]string{
		"entry-100-0000000042": "0000000042",
		"entry-100-0000000000000000004-1795955716859-34175fc2-000001":                "34175fc2-000001",
		"1795955717034-entry-003-0000000000000000014-1795955716967-6564bfa6-1000000": "6564bfa6-1000000",
		"1795955717034-entry-100-0000000042":                                         "0000000042",
		"1795959316909-put-100-61f3247dd93f0000":                                     "61f3247dd93f0000",
		"entry-100--2147483648":                                                      "2147483648",
		"strange":                                                                    "strange",
		"entry-100-x":                                                                "entry-100-x",
	} {
		got := shortName(name)
		if got != want {
			t.Errorf("%s is shown as %s, want %s", name, got, want)
		}
		if got != name && !nameTail.MatchString(got) {
			t.Errorf("%s, the end of %s, is not taken for one", got, name)
		}
	}
}

// names finds what it holds.
type names map[string][]string

func (n names) FindNames(context.Context, ...string) (map[string][]string, error) { return n, nil }

// The end of a name stands for it only where no other name of the queue ends so.
func TestTheEndOfSeveralNamesIsRefused(t *testing.T) {
	k := &call{queue: "jobs"}
	found := names{"0000000001": {"entry-100-0000000001"}, "0000000002": {"entry-100-0000000002", "entry-200-0000000002"}}
	whole, err := k.wholeNames(t.Context(), found, []string{"entry-005-0000000009", "0000000001", "0000000003"})
	if want := []string{"entry-005-0000000009", "entry-100-0000000001", "0000000003"}; err != nil || !slices.Equal(whole, want) {
		t.Errorf("%q, %v, want %q", whole, err, want)
	}
	_, err = k.wholeNames(t.Context(), found, []string{"0000000002"})
	if f := (*failure)(nil); !errors.As(err, &f) || f.code != exitUsage || !strings.Contains(f.Error(), "entry-100-0000000002 and entry-200-0000000002") {
		t.Errorf("the end of two names: %v", err)
	}
}
