package zkq

import (
	"bytes"
	"path"
	"reflect"
	"testing"

	"github.com/zkq/zkq/coord"
)

// FuzzCodec: what was put is what is handed out, whatever the bytes, and so for all
// else that zkq writes into nodes; what it did not write is read as something or
// other, never with a panic.
func FuzzCodec(f *testing.F) {
	for _, s := range []string{
		"", "job", envelopeMagic, envelopeMagic + "\x02{}", envelopeMagic + "\x02{}body", envelopeMagic + "\x00body", envelopeMagic + "\x03{}body",
		envelopeMagic + "\x02[]", envelopeMagic + "\x04null", envelopeMagic + "\x0d{\"later\":[1]}body", envelopeMagic + "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
		envelopeMagic + "\xff\xff\xff\xff\x0f{}", envelopeMagic + "\x09" + envelopeMagic + "\x02{}", "\x00zkq\x02\x02{}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sealed := headers{}.seal(b)
		if sealed == nil {
			t.Fatal("kazoo would read it as no value")
		}
		if got := unseal(sealed); !bytes.Equal(got, b) {
			t.Fatalf("%q was written as %q and is read as %q", b, sealed, got)
		}
		if !bytes.HasPrefix(b, []byte(envelopeMagic)) && !bytes.Equal(sealed, b) {
			t.Fatalf("%q was written as %q", b, sealed)
		}
		if len(sealed) > len(b)+64 {
			t.Fatalf("%d bytes became %d", len(b), len(sealed))
		}
		if body := unseal(b); !bytes.HasSuffix(b, body) {
			t.Fatalf("%q is read as %q", b, body)
		}
		checkMarker(t, marker{n: uint64(len(b)), void: len(b)%2 == 1, note: b})
		if m, ok := parseMarker(b); ok {
			checkMarker(t, m)
		}
		if tok, err := ParseToken(string(b)); err == nil {
			lane, n, err := tok.parse()
			if err != nil || n == 0 || tok != Token(b) || tok != token(lane, n) {
				t.Fatalf("token %q is lane %q, put %d, %v", b, lane, n, err)
			}
			if err := coord.CheckPath(path.Join(dirProducers, lane)); err != nil {
				t.Fatalf("token %q: %v", b, err)
			}
		}
		a := parseAttempts(coord.Node{Path: "/q/attempts/e", Value: b, Fence: 3})
		if a.Failures < 0 || a.Forgiven < 0 {
			t.Fatalf("%q is %+v", b, a)
		}
		if again := parseAttempts(coord.Node{Path: a.path, Value: a.write().Value, Fence: a.fence}); again != a {
			t.Fatalf("%q is %+v, and that is %+v", b, a, again)
		}
	})
}

func checkMarker(t *testing.T, m marker) {
	t.Helper()
	if len(m.note) == 0 {
		m.note = nil
	}
	got, ok := parseMarker(m.value())
	if !ok || !reflect.DeepEqual(got, m) {
		t.Fatalf("%+v is written %q, and that is %+v, %v", m, m.value(), got, ok)
	}
}
