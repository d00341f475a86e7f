package layout

import (
	"bytes"
	"encoding/json"
)

// Config is what the node [ConfigNode] of a queue holds. Fields that this version does
// not know are kept.
type Config struct {
	MaxEntries  int  `json:"max_entries,omitempty"`
	MaxSize     int  `json:"max_size,omitempty"`
	Approximate bool `json:"approximate,omitempty"`
	Paused      bool `json:"paused,omitempty"`
	Expires     bool `json:"ttl,omitempty"` // some entries may have a time to live

	fields map[string]json.RawMessage // all of the node, as read
}

// ParseConfig reads what the node holds. An empty one is an empty configuration; ok is
// false for what is no configuration of this version.
func ParseConfig(value []byte) (c Config, ok bool) {
	if len(bytes.TrimSpace(value)) == 0 {
		return Config{}, true
	}
	ok = json.Unmarshal(value, &c.fields) == nil && json.Unmarshal(value, &c) == nil && c.MaxEntries >= 0 && c.MaxSize >= 0
	return c, ok
}

// Value returns what to write into the node.
func (c Config) Value() ([]byte, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var own map[string]json.RawMessage
	if err := json.Unmarshal(text, &own); err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{"layout": json.RawMessage(`"locking"`)}
	for name, v := range c.fields {
		all[name] = v
	}
	for _, name := range []string{"max_entries", "max_size", "approximate", "paused", "ttl"} {
		delete(all, name)
		if v, ok := own[name]; ok {
			all[name] = v
		}
	}
	return json.Marshal(all)
}
