package zkq

import (
	"bytes"
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"unicode/utf8"
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

// encode refuses what a worker could not read, or would read as something else: an entry
// like that would be dead when it is first taken. So it is decoded once here.
func (t Typed[T]) encode(v T) ([]byte, error) {
	b, err := t.codec().Marshal(v)
	if err == nil {
		err = t.codec().Unmarshal(b, new(T))
	}
	if _, plain := t.codec().(jsonCodec); err == nil && plain {
		err = checkText(v, b)
	}
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w: %w", v, ErrInvalid, err)
	}
	return b, nil
}

// checkText refuses text that is not UTF-8, of which encoding/json makes other text. It
// writes \ufffd for each wrong byte, and for nothing else but JSON that was there before:
// only then it is looked at more closely.
func checkText(v any, text []byte) error {
	if !bytes.Contains(text, []byte(`\ufffd`)) {
		return nil
	}
	if wrong, found := wrongText(reflect.ValueOf(v), 0); found {
		return fmt.Errorf("%q is not UTF-8", wrong)
	}
	return nil
}

// wrongText finds a string in v that is not UTF-8. What says itself how it is written is
// not looked into.
func wrongText(v reflect.Value, depth int) (wrong string, found bool) {
	if !v.IsValid() || depth > 1000 {
		return "", false
	}
	t := v.Type()
	own := func(t reflect.Type) bool {
		return t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]())
	}
	if t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface && (own(t) || v.CanAddr() && own(reflect.PointerTo(t))) {
		return "", false
	}
	switch t.Kind() {
	case reflect.String:
		return v.String(), !utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return wrongText(v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "", false
		}
		for i := range v.Len() {
			if wrong, found = wrongText(v.Index(i), depth+1); found {
				return wrong, true
			}
		}
	case reflect.Map:
		for at := v.MapRange(); at.Next(); {
			if wrong, found = wrongText(at.Key(), depth+1); !found {
				wrong, found = wrongText(at.Value(), depth+1)
			}
			if found {
				return wrong, true
			}
		}
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); (f.IsExported() || f.Anonymous) && f.Tag.Get("json") != "-" {
				if wrong, found = wrongText(v.Field(i), depth+1); found {
					return wrong, true
				}
			}
		}
	}
	return "", false
}

// Put puts a value; the promises are those of [LockingQueue.Put]. What the codec
// does not take, or could not read again, is [ErrInvalid], before anything is sent: text that
// is not UTF-8, for instance, where the format has none. A type that a worker cannot decode,
// such as an interface with methods, is that too.
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
