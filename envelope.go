package zkq

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// envelopeMagic begins a node's value that is not plain bytes. An envelope is
// the magic, the length of the headers as an unsigned varint, the headers as
// JSON, and the body.
const envelopeMagic = "\x00zkq\x01"

// headers travel with a value. There are none that a put could set; fields that
// this version does not know are left alone.
type headers struct {
	Reason     string `json:"reason,omitempty"`     // of a dead entry
	Failures   int    `json:"failures,omitempty"`   // of a dead entry
	Deliveries int    `json:"deliveries,omitempty"` // of a dead entry
}

// seal returns the node's value for a body: the plain bytes, as kazoo writes
// them, unless they look like an envelope.
func seal(body []byte) []byte {
	if !bytes.HasPrefix(body, []byte(envelopeMagic)) {
		if body == nil {
			return []byte{} // kazoo reads nil as "no value"
		}
		return body
	}
	return headers{}.envelope(body)
}

func (h headers) json() []byte {
	text, err := json.Marshal(h)
	if err != nil {
		panic(fmt.Sprintf("zkq: headers: %v", err)) // a struct of plain fields
	}
	return text
}

// envelope is the envelope with these headers around a body.
func (h headers) envelope(body []byte) []byte {
	text := h.json()
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
