package layout_test

import (
	"bytes"
	"errors"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/priority"
)

// FuzzCodec checks that a value that was put is the value that is handed out, whatever its
// bytes, and that every other record survives being written and read. A value that zkq did
// not write is read as something or other, never with a panic.
func FuzzCodec(f *testing.F) {
	magic := layout.EnvelopeMagic
	for _, s := range []string{
		"", "job", magic, magic + "\x02{}", magic + "\x02{}body", magic + "\x00body", magic + "\x03{}body",
		magic + "\x02[]", magic + "\x04null", magic + "\x0d{\"later\":[1]}body", magic + "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
		magic + "\xff\xff\xff\xff\x0f{}", magic + "\x09" + magic + "\x02{}", "\x00zkq\x02\x02{}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sealed := layout.Headers{}.Seal(b)
		if sealed == nil {
			t.Fatal("kazoo would read it as no value")
		}
		if got := layout.Body(sealed); !bytes.Equal(got, b) {
			t.Fatalf("%q was written as %q and is read as %q", b, sealed, got)
		}
		if !bytes.HasPrefix(b, []byte(magic)) && !bytes.Equal(sealed, b) {
			t.Fatalf("%q was written as %q", b, sealed)
		}
		if len(sealed) > len(b)+64 {
			t.Fatalf("%d bytes became %d", len(b), len(sealed))
		}
		if body := layout.Body(b); !bytes.HasSuffix(b, body) {
			t.Fatalf("%q is read as %q", b, body)
		}
		checkMarker(t, layout.Marker{N: uint64(len(b)), Void: len(b)%2 == 1, Note: b})
		if m, ok := layout.ParseMarker(b); ok {
			checkMarker(t, m)
		}
		if lane, n, ok := layout.ParseToken(string(b)); ok {
			if n == 0 || string(b) != layout.FormatToken(lane, n) || !layout.IsLane(lane) {
				t.Fatalf("token %q is lane %q, put %d", b, lane, n)
			}
			if err := coord.CheckPath(path.Join(layout.ProducersDir, lane)); err != nil {
				t.Fatalf("token %q: %v", b, err)
			}
			if _, err := zkq.ParseToken(string(b)); err != nil {
				t.Fatalf("token %q: %v", b, err)
			}
		}
		h := layout.ParseHistory(b)
		if h.Failures < 0 || h.Forgiven < 0 || h.Updates < 0 || h.Stuck < 0 {
			t.Fatalf("%q is %+v", b, h)
		}
		if again := layout.ParseHistory(h.Value()); again != h {
			t.Fatalf("%q is %+v, and that is %+v", b, h, again)
		}
		if c, ok := layout.ParseConfig(b); ok {
			value, err := c.Value()
			if err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			if again, ok := layout.ParseConfig(value); !ok || again.MaxEntries != c.MaxEntries || again.MaxSize != c.MaxSize ||
				again.Approximate != c.Approximate || again.Paused != c.Paused || again.Expires != c.Expires {
				t.Fatalf("%q is %+v, written %q, and that is %+v, %v", b, c, value, again, ok)
			}
		}
	})
}

func checkMarker(t *testing.T, m layout.Marker) {
	t.Helper()
	if len(m.Note) == 0 {
		m.Note = nil
	}
	got, ok := layout.ParseMarker(m.Value())
	if !ok || !reflect.DeepEqual(got, m) {
		t.Fatalf("%+v is written %q, and that is %+v, %v", m, m.Value(), got, ok)
	}
}

// FuzzQueuePath checks that a queue's name either is refused as one or leads to a path
// below the root, of the name's own segments, none of which can be taken for one of zkq's.
func FuzzQueuePath(f *testing.F) {
	for _, s := range []string{
		"", "/", "jobs", "/a/b", "a/../b", "..", "./a", "a//b", "a/", "entry-1", "a/entry-100-0000000001", "entries", "a/taken/b",
		"zkq", "zookeeper/quota", "\xff", "a\x00b", "a\x1b[2J", "//", "\ufeff", "\ue000", "a\u0085b", "١", strings.Repeat("x", 256), strings.Repeat("x/", 512) + "x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, err := zkq.CheckName(name)
		if err != nil {
			if path != "" || !errors.Is(err, zkq.ErrInvalidName) {
				t.Fatalf("CheckName(%q) = %q, %v", name, path, err)
			}
			return
		}
		if err := coord.CheckPath(path); err != nil {
			t.Fatalf("CheckName(%q) = %q: %v", name, path, err)
		}
		if path != "/"+strings.TrimPrefix(name, "/") {
			t.Fatalf("CheckName(%q) = %q", name, path)
		}
		for seg := range strings.SplitSeq(path[1:], "/") {
			if len(seg) > 255 || strings.HasPrefix(seg, priority.EntryPrefix) || slices.Contains([]string{"entries", "taken", "", ".", ".."}, seg) {
				t.Fatalf("CheckName(%q) = %q, with the segment %q", name, path, seg)
			}
		}
		if again, err := zkq.CheckName(path); again != path || err != nil {
			t.Fatalf("CheckName(%q) = %q, and of that %q, %v", name, path, again, err)
		}
	})
}

// FuzzNodeNames checks that a name of zkq's nodes is read only in the form in which zkq
// writes it, so that no two names mean the same.
func FuzzNodeNames(f *testing.F) {
	for _, s := range []string{
		"", "1700000000000-entry-100-0000000007", "1700000000000-put-100-0123456789ab0000", "1700000000000-", "99999999999999-entry-1",
		"0000000000000000007-1700000000000-0000000000000", "0000000000000000007-1700000000000-1700000000001", "+000000000000000007-1700000000000-0000000000000",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if d, ok := layout.ParseDelayed(name); ok {
			_, rest, _ := layout.CutMillis(name)
			if again := layout.DelayedName(d.Due, rest); again != name || !d.IsPut() && d.Entry != rest {
				t.Fatalf("%q is %+v, and that is %q", name, d, again)
			}
			if d.IsPut() && priority.Check(d.Priority) != nil {
				t.Fatalf("%q is %+v", name, d)
			}
			if !layout.IsOwn(layout.DelayedDir, name) {
				t.Fatalf("a queue could be called %q", name)
			}
		}
		if entry, _, ok := layout.ParseDead(name); ok {
			ms, _, _ := layout.CutMillis(name)
			if again := layout.DeadName(time.UnixMilli(ms), entry); again != name {
				t.Fatalf("%q is %q", name, again)
			}
			if _, ok := layout.ParseDelayed(name); !ok {
				t.Fatalf("%q is of the dead and not of the index", name)
			}
		}
		if e, ok := layout.ParseRetained(name); ok {
			if again := e.Name(); again != name {
				t.Fatalf("%q is %+v, and that is %q", name, e, again)
			}
		}
	})
}
