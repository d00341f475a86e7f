package embedded_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// journal is what a process says about its calls. A line is one write, so that
// what was said before a kill -9 stands in the file; a last line without its end
// was never said.
type journal struct{ file *os.File }

func openJournal(path string) (journal, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	return journal{f}, err
}

func (j journal) say(format string, args ...any) error {
	_, err := fmt.Fprintf(j.file, format+"\n", args...)
	return err
}

// history is what all processes said together.
type history struct {
	puts  map[string]string  // by value: sent, ok, unknown or refused
	names map[string]string  // of the acknowledged, by value
	takes map[string][]*take // by name
}

// take is an entry in the hands of one worker.
type take struct {
	value   string
	token   int64
	outcome string // of the finish: "" before it, sent, ok, unknown, lost or refused
}

func newHistory() *history {
	return &history{puts: map[string]string{}, names: map[string]string{}, takes: map[string][]*take{}}
}

// add takes up one process's journal, and returns how many puts were acknowledged
// in it.
func (h *history) add(journal string) (acknowledged int, err error) {
	takes := map[string]*take{} // by name and token
	for line := range strings.Lines(journal) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		w := strings.Fields(line)
		w = append(w, make([]string, 4)...)
		id := w[1] + " " + w[2]
		switch verb := w[0]; {
		case verb == "put":
			h.puts[w[1]] = "sent"
		case verb == "ack" && h.puts[w[1]] == "sent":
			h.puts[w[1]], h.names[w[1]] = "ok", w[2]
			acknowledged++
		case verb == "unknown" && h.puts[w[1]] == "sent", verb == "refused" && h.puts[w[1]] == "sent":
			h.puts[w[1]] = verb
		case verb == "take" && takes[id] == nil:
			takes[id] = &take{value: w[3]}
			h.takes[w[1]] = append(h.takes[w[1]], takes[id])
			if takes[id].token, err = strconv.ParseInt(w[2], 10, 64); err != nil {
				return 0, err
			}
		case verb == "finish" && takes[id] != nil:
			takes[id].outcome = w[3]
		default:
			return 0, fmt.Errorf("cannot understand %q", line)
		}
	}
	return acknowledged, nil
}

// violations says what contradicts the invariant, once the queue is empty: every
// acknowledged put was removed by exactly one finish whose outcome was ok or
// unknown, and at most one was ok; no entry was handed out that no client had put.
func (h *history) violations() (found []string) {
	violation := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	handed := map[string]string{} // names, by value
	for name, takes := range h.takes {
		value, last, ok := takes[0].value, takes[0], 0
		for i, tk := range takes {
			if tk.value != value {
				violation("%s was handed out with the values %s and %s", name, tk.value, value)
			}
			if i > 0 && tk.token == last.token {
				violation("%s was handed out twice with the token %d", name, tk.token)
			}
			if tk.token > last.token {
				last = tk
			}
			if tk.outcome == "ok" {
				ok++
			}
		}
		if ok > 1 {
			violation("%s was finished %d times", name, ok)
		}
		// The fence moves with each claim: no other holder than the last can have
		// removed it.
		if o := last.outcome; o != "ok" && o != "unknown" && o != "sent" {
			violation("%s is gone, and the finish of its last holder ended as %q", name, o)
		}
		if other, twice := handed[value]; twice {
			violation("%s was put once and handed out as %s and %s", value, other, name)
		}
		handed[value] = name
		switch h.puts[value] {
		case "":
			violation("%s was handed out as %s, and nobody put it", value, name)
		case "refused":
			violation("%s was handed out as %s, and its put had said that nothing was changed", value, name)
		}
	}
	for value, name := range h.names {
		// A put whose answer was lost has no name if the entry was taken before it was read.
		if there, ok := handed[value]; !ok || name != "" && there != name {
			violation("%s was put as %s, acknowledged, and handed out as %q", value, name, handed[value])
		}
	}
	return found
}

// String counts.
func (h *history) String() string {
	var acks, unknown, handed, ok, open, lost int
	for _, state := range h.puts {
		switch state {
		case "ok":
			acks++
		case "sent", "unknown":
			unknown++
		}
	}
	for _, takes := range h.takes {
		for _, tk := range takes {
			handed++
			switch tk.outcome {
			case "ok":
				ok++
			case "unknown", "sent":
				open++
			case "lost":
				lost++
			}
		}
	}
	return fmt.Sprintf("%d puts acknowledged, %d unknown; %d takes of %d entries; %d finishes ok, %d unknown, %d too late",
		acks, unknown, handed, len(h.takes), ok, open, lost)
}

func TestHistoryNoticesWhatMustNotBe(t *testing.T) {
	const put = "put a\nack a e1\n"
	for _, c := range []struct{ journal, says string }{
		{put + "take e1 7 a\nfinish e1 7 sent\nfinish e1 7 ok\n", ""},
		{put + "take e1 7 a\nfinish e1 7 sent\n", ""},                                                // killed in the finish
		{put + "take e1 7 a\ntake e1 8 a\nfinish e1 8 sent\nfinish e1 8 ok\n", ""},                   // killed before it
		{put + "take e1 7 a\nfinish e1 7 lost\ntake e1 8 a\nfinish e1 8 ok\nput b\nunknown b\n", ""}, // too late
		{"put b\ntake e1 7 b\nfinish e1 7 ok\n", ""},
		{"put a", ""}, // torn
		{put, "handed out as \"\""},
		{put + "take e1 7 a\n", "last holder ended as \"\""},
		{put + "take e1 7 a\nfinish e1 7 lost\n", "ended as \"lost\""},
		{put + "take e1 7 a\nfinish e1 7 ok\ntake e1 8 a\nfinish e1 8 lost\n", "ended as \"lost\""},
		{put + "take e1 7 a\nfinish e1 7 ok\ntake e1 8 a\nfinish e1 8 ok\n", "finished 2 times"},
		{put + "take e1 7 b\nfinish e1 7 ok\n", "nobody put it"},
		{put + "take e2 7 a\nfinish e2 7 ok\n", "acknowledged, and handed out as \"e2\""},
		{"put a\ntake e1 7 a\nfinish e1 7 ok\ntake e2 9 a\nfinish e2 9 ok\n", "was put once"},
		{"put a\nrefused a\ntake e1 7 a\nfinish e1 7 ok\n", "nothing was changed"},
	} {
		h := newHistory()
		if _, err := h.add(c.journal); err != nil {
			t.Fatal(err)
		}
		found := strings.Join(h.violations(), "; ")
		if !strings.Contains(found, c.says) || c.says == "" && found != "" {
			t.Errorf("%q: found %q, want %q", c.journal, found, c.says)
		}
	}
}
