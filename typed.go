package zkq

import (
	"context"
	"encoding/json"
	"fmt"
)

// Codec turns values into the bytes of an entry and back. Those of other formats
// than JSON are in packages of their own: codec/msgpack, codec/cbor.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error // into the pointer v
}

// JSONCodec is that of encoding/json.
var JSONCodec Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// JSON makes a handler of a function that takes what the entry's JSON says. An
// entry that does not say it is dead at once ([Skip]). [HeldFrom] has the entry.
func JSON[T any](f func(ctx context.Context, v T) error) Handler {
	return Typed[T]{}.Handler(f)
}

// Typed is a queue whose entries hold values of one type. It is a thin coat: what
// it puts are plain entries, for any worker that knows the codec.
type Typed[T any] struct {
	Queue *LockingQueue
	Codec Codec // nil: JSONCodec
}

func (t Typed[T]) codec() Codec {
	if t.Codec == nil {
		return JSONCodec
	}
	return t.Codec
}

func (t Typed[T]) encode(v T) ([]byte, error) {
	b, err := t.codec().Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w: %w", v, ErrInvalid, err)
	}
	return b, nil
}

// Put puts a value; the promises are those of [LockingQueue.Put]. What the codec
// does not take is [ErrInvalid], before anything is sent.
func (t Typed[T]) Put(ctx context.Context, v T, opts ...PutOption) (string, error) {
	b, err := t.encode(v)
	if err != nil {
		return "", err
	}
	return t.Queue.Put(ctx, b, opts...)
}

// PutAll puts the values, all or none; the promises are those of
// [LockingQueue.PutAll].
func (t Typed[T]) PutAll(ctx context.Context, vs []T, opts ...PutOption) ([]string, error) {
	values := make([][]byte, len(vs))
	for i, v := range vs {
		b, err := t.encode(v)
		if err != nil {
			return nil, fmt.Errorf("value %d: %w", i, err)
		}
		values[i] = b
	}
	return t.Queue.PutAll(ctx, values, opts...)
}

// Decode is what the entry holds.
func (t Typed[T]) Decode(h *Held) (T, error) {
	var v T
	if err := t.codec().Unmarshal(h.Value, &v); err != nil {
		return v, fmt.Errorf("decode %T: %w", v, err)
	}
	return v, nil
}

// Handler makes a handler of a function that takes a decoded value. An entry that
// cannot be decoded is dead at once ([Skip]). [HeldFrom] has the entry.
func (t Typed[T]) Handler(f func(ctx context.Context, v T) error) Handler {
	return HandlerFunc(func(ctx context.Context, h *Held) error {
		v, err := t.Decode(h)
		if err != nil {
			return Skip(err)
		}
		return f(ctx, v)
	})
}
