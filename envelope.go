package zkq

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
)

// envelopeMagic begins a node's value that is not plain bytes. An envelope is
// the magic, the length of the headers as an unsigned varint, the headers as
// JSON, and the body.
const envelopeMagic = "\x00zkq\x01"

// headers travel with a value. Fields that this version does not know are left alone.
type headers struct {
	ExpiresMS int64  `json:"expires_ms,omitempty"` // nobody is handed it from then on
	Unique    string `json:"unique,omitempty"`     // SHA-256 of its key, in hexadecimal digits

	Reason     string `json:"reason,omitempty"`     // of a dead entry
	Failures   int    `json:"failures,omitempty"`   // of a dead entry
	Deliveries int    `json:"deliveries,omitempty"` // of a dead entry
}

// seal returns the node's value for a body: the plain bytes, as kazoo writes
// them, unless they look like an envelope or something travels with them.
func (h headers) seal(body []byte) []byte {
	if h == (headers{}) && !bytes.HasPrefix(body, []byte(envelopeMagic)) {
		if body == nil {
			return []byte{} // kazoo reads nil as "no value"
		}
		return body
	}
	return h.envelope(body)
}

// headersOf are the headers in a node's value, none where it has none of ours. Any client
// of the service may have written them: no field may become a part of a path unchecked.
func headersOf(value []byte) headers {
	text, _ := unwrap(value)
	var h headers
	if text == nil || json.Unmarshal(text, &h) != nil {
		return headers{}
	}
	if !isKeySum(h.Unique) {
		h.Unique = ""
	}
	return h
}

// reseal is the node's value with another body, and all its headers.
func reseal(value, body []byte) []byte {
	text, _ := unwrap(value)
	if text == nil {
		return headers{}.seal(body)
	}
	return envelope(text, body)
}

// reborn is the node's value for an entry that begins a second life: with the headers of
// others, but it stands for no key any more, and does not expire.
func reborn(value []byte) []byte {
	text, body := unwrap(value)
	var fields map[string]json.RawMessage
	if text == nil || json.Unmarshal(text, &fields) != nil {
		return value
	}
	all := len(fields)
	for name := range fields { // encoding/json takes fields in any case
		if strings.EqualFold(name, "expires_ms") || strings.EqualFold(name, "unique") {
			delete(fields, name)
		}
	}
	if len(fields) == all {
		return value
	}
	text, err := json.Marshal(fields)
	if err != nil || len(fields) == 0 {
		return headers{}.seal(body)
	}
	return envelope(text, body)
}

func (h headers) json() []byte {
	text, err := json.Marshal(h)
	if err != nil {
		panic(fmt.Sprintf("zkq: headers: %v", err)) // a struct of plain fields
	}
	return text
}

// envelope is the envelope with these headers around a body.
func (h headers) envelope(body []byte) []byte { return envelope(h.json(), body) }

func envelope(text, body []byte) []byte {
	b := make([]byte, 0, len(envelopeMagic)+binary.MaxVarintLen64+len(text)+len(body))
	b = append(b, envelopeMagic...)
	b = binary.AppendUvarint(b, uint64(len(text)))
	b = append(b, text...)
	return append(b, body...)
}

// unseal returns the body in a node's value. What is not an envelope to the last
// detail is plain.
func unseal(value []byte) []byte {
	_, body := unwrap(value)
	return body
}

// unwrap returns the headers, as JSON, and the body in a node's value: nil and all
// of it if it is no envelope.
func unwrap(value []byte) (text, body []byte) {
	rest, ok := bytes.CutPrefix(value, []byte(envelopeMagic))
	if !ok {
		return nil, value
	}
	n, used := binary.Uvarint(rest)
	if used <= 0 || n > uint64(len(rest)-used) {
		return nil, value
	}
	text, body = rest[used:used+int(n)], rest[used+int(n):]
	var object struct{} // whatever its fields
	if json.Unmarshal(text, &object) != nil {
		return nil, value
	}
	return text, body
}
