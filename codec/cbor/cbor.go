// Package cbor has a codec of zkq for CBOR (RFC 8949), so that workers in other
// languages can read the values of entries. A struct's field gets the name of its `cbor`
// or `json` tag. The encoding is the deterministic one of the standard: equal values give
// equal bytes.
//
// Only programs that import this package link the library that it uses.
package cbor

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/zkq/zkq"
)

// Codec reads and writes CBOR.
var Codec = newCodec()

type codec struct {
	cbor.EncMode
	cbor.DecMode
}

func newCodec() zkq.Codec {
	o := cbor.CoreDetEncOptions()
	o.Time, o.TimeTag = cbor.TimeRFC3339Nano, cbor.EncTagRequired
	enc, err := o.EncMode()
	if err != nil {
		panic(fmt.Sprintf("zkq: cbor: %v", err)) // a mistake in the options above
	}
	dec, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		panic(fmt.Sprintf("zkq: cbor: %v", err))
	}
	return codec{enc, dec}
}
