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

// headers travel with a value. There are none yet that a put could set; fields
// that this version does not know are left alone.
type headers struct{}

// seal returns the node's value for a body: the plain bytes, as kazoo writes
// them, unless they look like an envelope.
func seal(body []byte) []byte {
	if !bytes.HasPrefix(body, []byte(envelopeMagic)) {
		if body == nil {
			return []byte{} // kazoo reads nil as "no value"
		}
		return body
	}
	h, err := json.Marshal(headers{})
	if err != nil {
		panic(fmt.Sprintf("zkq: headers: %v", err)) // a struct of plain fields
	}
	b := make([]byte, 0, len(envelopeMagic)+binary.MaxVarintLen64+len(h)+len(body))
	b = append(b, envelopeMagic...)
	b = binary.AppendUvarint(b, uint64(len(h)))
	b = append(b, h...)
	return append(b, body...)
}

// unseal returns the body in a node's value. What is not an envelope to the last
// detail is plain.
func unseal(value []byte) []byte {
	rest, ok := bytes.CutPrefix(value, []byte(envelopeMagic))
	if !ok {
		return value
	}
	n, used := binary.Uvarint(rest)
	if used <= 0 || n > uint64(len(rest)-used) {
		return value
	}
	var h headers
	if json.Unmarshal(rest[used:used+int(n)], &h) != nil {
		return value
	}
	return rest[used+int(n):]
}
