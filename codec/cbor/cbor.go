// Package cbor has a codec of zkq for CBOR (RFC 8949), so that workers in other
// languages can read what is put. A struct's field is named as its `cbor` or its
// `json` tag says. What is written is the standard's deterministic encoding: equal
// values give equal bytes.
//
// Those who do not import this package do not link the library beneath.
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
		panic(fmt.Sprintf("zkq: cbor: %v", err)) // options of this file
	}
	dec, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		panic(fmt.Sprintf("zkq: cbor: %v", err))
	}
	return codec{enc, dec}
}
