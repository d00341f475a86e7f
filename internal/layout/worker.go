package layout

import (
	"encoding/json"
	"time"
)

// Worker describes the process of a registered handle. It is in an ephemeral node in
// [WorkersDir], named by the handle's holder.
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
