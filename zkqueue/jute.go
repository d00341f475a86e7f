package zkqueue

import (
	"encoding/binary"
	"slices"

	"github.com/go-zookeeper/zk"
)

// jute decodes ZooKeeper's encoding. A value beyond the end is zero and sets short.
type jute struct {
	rest  []byte
	short bool
}

// take returns the next n bytes.
func (j *jute) take(n int) []byte {
	if n < 0 || n > len(j.rest) {
		j.short, j.rest = true, nil
		return make([]byte, max(0, min(n, 8)))
	}
	b := j.rest[:n]
	j.rest = j.rest[n:]
	return b
}

func (j *jute) int32() int32 { return int32(binary.BigEndian.Uint32(j.take(4))) }

func (j *jute) int64() int64 { return int64(binary.BigEndian.Uint64(j.take(8))) }

// bytes returns a copy, so that the frame it was part of can be freed.
func (j *jute) bytes() []byte {
	n := j.int32()
	if n < 0 { // null
		return nil
	}
	return slices.Clone(j.take(int(n)))
}

// partHeader reads the type and whether the parts end here. It skips the error, which the
// part repeats.
func (j *jute) partHeader() (op int32, done bool) {
	op = j.int32()
	return op, j.take(1 + 4)[0] != 0
}

// stat decodes a node's metadata.
func (j *jute) stat() zk.Stat {
	return zk.Stat{
		Czxid: j.int64(), Mzxid: j.int64(), Ctime: j.int64(), Mtime: j.int64(),
		Version: j.int32(), Cversion: j.int32(), Aversion: j.int32(),
		EphemeralOwner: j.int64(), DataLength: j.int32(), NumChildren: j.int32(), Pzxid: j.int64(),
	}
}

// appendBytes appends v in ZooKeeper's encoding: its length, then its bytes.
func appendBytes(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}
