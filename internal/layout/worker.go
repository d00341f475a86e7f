package layout

import (
	"encoding/json"
	"time"
)

// Worker is what a registered handle says of itself, in the ephemeral node of its
// holder's name in [WorkersDir].
type Worker struct {
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// Value returns what its node holds; an error if the time cannot be written.
func (w Worker) Value() ([]byte, error) { return json.Marshal(w) }

// ParseWorker reads what a worker's node holds.
func ParseWorker(value []byte) (w Worker, ok bool) {
	ok = json.Unmarshal(value, &w) == nil && w.PID >= 1
	return w, ok
}
