package layout_test

import (
	"strings"
	"testing"

	"github.com/zkq/zkq/internal/layout"
)

func TestOnlyLowercaseHexDigitsNameAKey(t *testing.T) {
	if sum := layout.KeySum("order-7"); !layout.IsKeySum(sum) {
		t.Errorf("%q is no name of a key", sum)
	}
	for _, text := range []string{
		"", strings.Repeat("a", 63), strings.Repeat("a", 65), strings.Repeat("A", 64), strings.Repeat("a", 63) + "/", strings.Repeat("../", 21) + "a",
	} {
		if layout.IsKeySum(text) {
			t.Errorf("%q is a name of a key", text)
		}
	}
}

func TestRequeuedValueHasNoHeaderOfAnyCaseLeft(t *testing.T) {
	const headers = `{"Unique":"` + "x" + `","EXPIRES_MS":7,"later":1}`
	value := layout.EnvelopeMagic + string(rune(len(headers))) + headers + "job"
	text, body := layout.Unwrap(layout.Requeued([]byte(value)))
	if string(text) != `{"later":1}` || string(body) != "job" {
		t.Errorf("%q became headers %s around %q", value, text, body)
	}
	alone := layout.Headers{ExpiresMS: 7}.Envelope([]byte("job"))
	if got := layout.Requeued(alone); string(got) != "job" {
		t.Errorf("%q became %q", alone, got)
	}
}

func TestAnImpossibleCountIsNoHistory(t *testing.T) {
	for _, text := range []string{`{"failures":-1}`, `{"failures":2199023255552}`, `{"forgiven":4611686018427387904}`, `{"stuck":-2}`, `{"updates":2199023255552}`, `[]`, ``} {
		if h := layout.ParseHistory([]byte(text)); h != (layout.History{}) {
			t.Errorf("%s is %+v", text, h)
		}
	}
	const text = `{"failures":2,"forgiven":3,"reason":"busy"}`
	if h := layout.ParseHistory([]byte(text)); h.Failures != 2 || h.Forgiven != 3 || string(h.Value()) != text {
		t.Errorf("%s is %+v, written %s", text, h, h.Value())
	}
}

func TestReasonIsCutBetweenCharacters(t *testing.T) {
	for text, want := range map[string]string{"busy": "busy", "größe": "gr", "gr\xff": "gr\uFFFD"} {
		n := 3
		if text != "größe" {
			n = 9
		}
		if got := layout.CutText(text, n); got != want {
			t.Errorf("%d bytes of %q are %q", n, text, got)
		}
	}
}

func TestLayoutIsShownByNames(t *testing.T) {
	if !layout.ShowsLocking("entries") || layout.ShowsLocking("entry-100-0000000001") {
		t.Error("the entries of a locking queue are not told by their directory")
	}
	if !layout.ShowsPlain("entry-100-0000000001") || layout.ShowsPlain("entries") || layout.ShowsPlain("entry-x") {
		t.Error("the entries of a plain queue are not told by their names")
	}
	if layout.BeforeEntries >= layout.EntriesDir {
		t.Error("a listing after BeforeEntries leaves the entries out")
	}
}
