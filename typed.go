package zkq

import (
	"bytes"
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"unicode/utf8"
)

// Codec turns Go values into the bytes of an entry, and back. JSON is [JSONCodec]; packages
// codec/msgpack and codec/cbor have other formats.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error // into the pointer v
}

// JSONCodec encodes values with encoding/json. It is the default of [Typed].
var JSONCodec Codec = jsonCodec{}

// jsonCodec is the type of JSONCodec.
type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// JSON returns a handler that decodes an entry's JSON and calls f with the result. An entry
// that cannot be decoded is dead at once ([Skip]). In f, [HeldFrom] returns the entry.
func JSON[T any](f func(ctx context.Context, v T) error) Handler {
	return Typed[T]{}.Handler(f)
}

// Typed puts values of one type into a queue, and decodes them for a handler. Its entries are
// like any others: a worker in any language can take them if it knows the codec's format.
type Typed[T any] struct {
	Queue *LockingQueue
	Codec Codec // nil: JSONCodec
}

// codec returns the Codec, or its default.
func (t Typed[T]) codec() Codec {
	if t.Codec == nil {
		return JSONCodec
	}
	return t.Codec
}

// encode returns the bytes of v. It also decodes them again. So it returns [ErrInvalid] for a
// value that no worker could decode: its entry would be dead when it is first taken.
func (t Typed[T]) encode(v T) ([]byte, error) {
	b, err := t.codec().Marshal(v)
	if err == nil {
		err = t.codec().Unmarshal(b, new(T))
	}
	if _, isJSON := t.codec().(jsonCodec); err == nil && isJSON {
		err = checkText(v, b)
	}
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w: %w", v, ErrInvalid, err)
	}
	return b, nil
}

// checkText returns an error if v has text that is not UTF-8. encoding/json writes \ufffd for
// each wrong byte, so that the worker would get other text. v is searched only if its JSON,
// text, contains \ufffd.
func checkText(v any, text []byte) error {
	if !bytes.Contains(text, []byte(`\ufffd`)) {
		return nil
	}
	if wrong, found := wrongText(reflect.ValueOf(v), 0); found {
		return fmt.Errorf("%q is not UTF-8", wrong)
	}
	return nil
}

// wrongText returns a string in v that is not UTF-8. It skips values that marshal themselves,
// and goes no deeper than 1,000 levels, since v may contain itself.
func wrongText(v reflect.Value, depth int) (wrong string, found bool) {
	if !v.IsValid() || depth > 1000 || marshalsItself(v) {
		return "", false
	}
	for part := range partsOf(v) {
		if wrong, found = wrongText(part, depth+1); found {
			return wrong, true
		}
	}
	if v.Kind() != reflect.String {
		return "", false
	}
	return v.String(), !utf8.ValidString(v.String())
}

// partsOf yields the values in v that encoding/json writes: elements, keys, fields.
func partsOf(v reflect.Value) iter.Seq[reflect.Value] {
	return func(yield func(reflect.Value) bool) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			yield(v.Elem())
		case reflect.Slice, reflect.Array:
			for i := range v.Len() {
				if v.Type().Elem().Kind() == reflect.Uint8 || !yield(v.Index(i)) {
					return
				}
			}
		case reflect.Map:
			for at := v.MapRange(); at.Next(); {
				if !yield(at.Key()) || !yield(at.Value()) {
					return
				}
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if f := v.Type().Field(i); (f.IsExported() || f.Anonymous) && f.Tag.Get("json") != "-" && !yield(v.Field(i)) {
					return
				}
			}
		}
	}
}

// marshalsItself reports whether encoding/json calls a method of v to encode it, so that the
// fields of v need not be what is written.
func marshalsItself(v reflect.Value) bool {
	has := func(t reflect.Type) bool {
		return t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]())
	}
	t := v.Type()
	return t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface && (has(t) || v.CanAddr() && has(reflect.PointerTo(t)))
}

// Put puts a value; the promises are those of [LockingQueue.Put]. A value that the codec
// cannot encode, or cannot decode again, is refused with [ErrInvalid] before anything is
// sent. Examples are text that is not UTF-8, where the format has no other, and a type that
// no worker can decode, such as an interface with methods.
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

// Decode returns the value of a held entry. Its error says that the codec cannot decode it.
func (t Typed[T]) Decode(h *Held) (T, error) {
	var v T
	if err := t.codec().Unmarshal(h.Value, &v); err != nil {
		return v, fmt.Errorf("decode %T: %w", v, err)
	}
	return v, nil
}

// Handler returns a handler that decodes an entry's value and calls f with it. An entry
// that cannot be decoded is dead at once ([Skip]). In f, [HeldFrom] returns the entry.
func (t Typed[T]) Handler(f func(ctx context.Context, v T) error) Handler {
	return HandlerFunc(func(ctx context.Context, h *Held) error {
		v, err := t.Decode(h)
		if err != nil {
			return Skip(err)
		}
		return f(ctx, v)
	})
}
