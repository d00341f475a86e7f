package layout

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// EnvelopeMagic begins a node's value that is not plain bytes. An envelope is the magic,
// the length of the headers as an unsigned varint, the headers as JSON, and the body.
const EnvelopeMagic = "\x00zkq\x01"

// Headers travel with a value. Fields that this version does not know are left alone.
type Headers struct {
	ExpiresMS int64  `json:"expires_ms,omitempty"` // unix time from which it is handed to no process
	Unique    string `json:"unique,omitempty"`     // SHA-256 of its key, in hexadecimal digits

	Reason     string `json:"reason,omitempty"`     // of a dead entry
	Failures   int    `json:"failures,omitempty"`   // of a dead entry
	Deliveries int    `json:"deliveries,omitempty"` // of a dead entry
}

// Seal returns the node's value for a body: the plain bytes, as kazoo writes them, unless
// they look like an envelope or headers travel with them.
func (h Headers) Seal(body []byte) []byte {
	if h == (Headers{}) && !bytes.HasPrefix(body, []byte(EnvelopeMagic)) {
		if body == nil {
			return []byte{} // kazoo reads nil as "no value"
		}
		return body
	}
	return h.Envelope(body)
}

// Expires returns when an entry with these headers expires; the zero time means never.
func (h Headers) Expires() time.Time {
	if h.ExpiresMS <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(h.ExpiresMS)
}

// HeadersOf returns the headers in a node's value, or none where it has none of ours. Any
// client of the service may have written them: no field may become part of a path
// unchecked.
func HeadersOf(value []byte) Headers {
	text, _ := Unwrap(value)
	var h Headers
	if text == nil || json.Unmarshal(text, &h) != nil {
		return Headers{}
	}
	if !IsKeySum(h.Unique) {
		h.Unique = ""
	}
	return h
}

// DeadHeadersOf parses the headers of a dead entry's envelope; text comes from [Unwrap].
// Headers that another client wrote in another form are read as none.
func DeadHeadersOf(text []byte) Headers {
	var h Headers
	if json.Unmarshal(text, &h) != nil {
		return Headers{}
	}
	return h
}

// Reseal returns the node's value with another body and the headers it has.
func Reseal(value, body []byte) []byte {
	text, _ := Unwrap(value)
	if text == nil {
		return Headers{}.Seal(body)
	}
	return envelope(text, body)
}

// Requeued returns the node's value for a dead entry that is requeued. It keeps headers
// that this version does not know, but has no unique key and does not expire.
func Requeued(value []byte) []byte {
	text, body := Unwrap(value)
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
		return Headers{}.Seal(body)
	}
	return envelope(text, body)
}

// Shorten cuts the reason so that the headers take n bytes less, if the reason is that
// long.
func (h Headers) Shorten(n int) Headers {
	most := len(h.json()) - max(n, 1)
	for over := n; h.Reason != "" && over > 0; over = len(h.json()) - most {
		h.Reason = CutText(h.Reason, len(h.Reason)-max(over/len(`\u0000`), 1)) // the longest form of a character in JSON
	}
	return h
}

// json returns the headers as an envelope holds them.
func (h Headers) json() []byte { return mustMarshal(h) }

// Envelope returns an envelope with these headers around a body.
func (h Headers) Envelope(body []byte) []byte { return envelope(h.json(), body) }

// envelope returns an envelope with headers in JSON around a body.
func envelope(text, body []byte) []byte {
	b := make([]byte, 0, len(EnvelopeMagic)+binary.MaxVarintLen64+len(text)+len(body))
	b = append(b, EnvelopeMagic...)
	b = binary.AppendUvarint(b, uint64(len(text)))
	b = append(b, text...)
	return append(b, body...)
}

// Body returns the body in a node's value. A value that is not an envelope to the last
// detail is plain, and its own body.
func Body(value []byte) []byte {
	_, body := Unwrap(value)
	return body
}

// Unwrap returns the headers, as JSON, and the body in a node's value. Without an envelope
// it returns nil and the whole value.
func Unwrap(value []byte) (text, body []byte) {
	rest, ok := bytes.CutPrefix(value, []byte(EnvelopeMagic))
	if !ok {
		return nil, value
	}
	n, used := binary.Uvarint(rest)
	if used <= 0 || n > uint64(len(rest)-used) {
		return nil, value
	}
	text, body = rest[used:used+int(n)], rest[used+int(n):]
	var object struct{} // any fields will do
	if json.Unmarshal(text, &object) != nil {
		return nil, value
	}
	return text, body
}

// CutText returns the beginning of a text: whole characters, of at most n bytes.
func CutText(text string, n int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:max(n, 0)], "")
}

// mustMarshal is json.Marshal of a struct of plain fields, which never fails.
func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("zkq: %T: %v", v, err))
	}
	return b
}
