// Package msgpack has a codec of zkq for MessagePack, so that workers in other
// languages can read the values of entries. A struct's field gets the name of its
// `codec` or `json` tag. Equal values give equal bytes.
//
// It uses the library that HashiCorp maintains for its own programs. Only programs that
// import this package link it.
package msgpack

import (
	"fmt"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/zkq/zkq"
)

// Codec reads and writes MessagePack.
var Codec zkq.Codec = msgpack{}

var handle = func() *codec.MsgpackHandle {
	h := &codec.MsgpackHandle{WriteExt: true} // strings and bytes differ, as in the current format
	h.Canonical = true
	h.RawToString = true
	return h
}()

type msgpack struct{}

func (msgpack) Marshal(v any) (b []byte, err error) {
	err = codec.NewEncoderBytes(&b, handle).Encode(v)
	return b, err
}

func (msgpack) Unmarshal(data []byte, v any) error {
	d := codec.NewDecoderBytes(data, handle)
	if err := d.Decode(v); err != nil {
		return err
	}
	if n := d.NumBytesRead(); n != len(data) {
		return fmt.Errorf("%d bytes follow the value", len(data)-n)
	}
	return nil
}
