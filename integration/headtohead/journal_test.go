package headtohead

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// record is a line of a client's journal, the same in Go and in Python.
type record struct {
	Time    int64  `json:"t"` // Unix, in nanoseconds
	Act     string `json:"a"`
	Queue   int    `json:"q"`
	Name    string `json:"n,omitempty"` // of the entry
	Holder  string `json:"h,omitempty"` // what stands in this worker's locks
	Value   string `json:"v,omitempty"` // every put has one of its own
	Outcome string `json:"o,omitempty"`
	Error   string `json:"e,omitempty"`

	client string // whose journal it is
}

// Acts. Each pair is written before and after the call.
const (
	putting, put        = "putting", "put"
	took                = "took"
	finishing, finished = "finishing", "finished"
	note                = "note"
)

// Outcomes.
const (
	ok      = "ok"
	unknown = "unknown" // neither done nor certainly not done
	lost    = "lost"    // the entry was no longer this worker's
	refused = "refused" // another error that says that nothing was done
)

func (r record) at() time.Time { return time.Unix(0, r.Time) }

// readJournals reads <client>.journal of each client.
func readJournals(dir string) ([]record, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil {
		return nil, err
	}
	var all []record
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		b = b[:bytes.LastIndexByte(b, '\n')+1] // a client killed while it wrote
		for line := range bytes.Lines(b) {
			r := record{client: filepath.Base(file[:len(file)-len(".journal")])}
			if err := json.Unmarshal(line, &r); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			all = append(all, r)
		}
	}
	return all, nil
}

func TestJournalOfAKilledClientIsReadToItsLastWholeLine(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "c0.journal"), []byte(`{"t":1,"a":"putting","v":"x"}`+"\n"+`{"t":2,"a":"pu`), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readJournals(dir)
	if want := (record{Time: 1, Act: putting, Value: "x", client: "c0"}); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}
