// Package codec_test checks what every codec in the directories below promises.
package codec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/codec/cbor"
	"github.com/zkq/zkq/codec/msgpack"
	"github.com/zkq/zkq/coord/coordtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var codecs = map[string]zkq.Codec{"CBOR": cbor.Codec, "MessagePack": msgpack.Codec}

// onEach runs a test with each codec.
func onEach(t *testing.T, test func(t *testing.T, c zkq.Codec)) {
	for name, c := range codecs {
		t.Run(name, func(t *testing.T) { test(t, c) })
	}
}

type job struct {
	Name  string            `json:"name"`
	Data  []byte            `json:"data"`
	Tags  map[string]string `json:"tags"`
	Count int64             `json:"count"`
	Due   time.Time         `json:"due"`
	Part  *job              `json:"part,omitempty"`
}

var one = job{
	Name: "ü", Data: []byte{0, 255}, Tags: map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}, Count: -1 << 60,
	Due: time.Unix(1700000000, 123456789).UTC(), Part: &job{Name: "part", Data: []byte{}, Tags: map[string]string{}},
}

func TestValueArrivesAsItWasPut(t *testing.T) {
	onEach(t, func(t *testing.T, c zkq.Codec) {
		b, err := c.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		var got job
		if err := c.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if !got.Due.Equal(one.Due) {
			t.Errorf("due %v, want %v", got.Due, one.Due)
		}
		got.Due, got.Part.Due = one.Due, one.Part.Due
		if !reflect.DeepEqual(got, one) {
			t.Errorf("got %+v, want %+v", got, one)
		}
	})
}

// TestOthersReadTheNames: the bytes hold the tags' names, and equal values give equal bytes.
func TestOthersReadTheNames(t *testing.T) {
	onEach(t, func(t *testing.T, c zkq.Codec) {
		first, err := c.Marshal(one)
		if err != nil || !bytes.Contains(first, []byte("count")) {
			t.Fatalf("%q, %v", first, err)
		}
		for range 20 {
			if b, err := c.Marshal(one); err != nil || !bytes.Equal(b, first) {
				t.Fatalf("%x and %x, %v", b, first, err)
			}
		}
	})
}

func TestWhatIsNoValueIsAnError(t *testing.T) {
	onEach(t, func(t *testing.T, c zkq.Codec) {
		b, err := c.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		for n := range b {
			if err := c.Unmarshal(b[:n], new(job)); err == nil {
				t.Errorf("the first %d bytes of %d are a value", n, len(b))
			}
		}
		if err := c.Unmarshal(append(b, b[0]), new(job)); err == nil {
			t.Error("a value with a byte more is a value")
		}
		if err := c.Unmarshal([]byte("text"), new(job)); err == nil {
			t.Error("text is a value")
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	for _, c := range codecs {
		b, err := c.Marshal(one)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xdd, 0x7e, 0x7e, 0x7e, 0x7e}) // an array of two thousand million
	f.Add([]byte{0x9a, 0x7e, 0x7e, 0x7e, 0x7e})
	f.Add([]byte{0xd4})
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, c := range codecs {
			_ = c.Unmarshal(b, new(job))
			_ = c.Unmarshal(b, new(any))
			_ = c.Unmarshal(b, new([]any))
		}
	})
}

func TestWorkerDecodes(t *testing.T) {
	onEach(t, func(t *testing.T, c zkq.Codec) {
		service := coordtest.NewStore().Open(coordtest.Options{})
		defer service.Close()
		jobs := zkq.Typed[job]{Queue: zkq.NewLockingQueue(service, "jobs"), Codec: c}
		defer jobs.Queue.Close()
		if _, err := jobs.Put(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		if _, err := jobs.Queue.Put(t.Context(), []byte("text")); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var endings []string
		w := &zkq.Worker{
			Queue: jobs.Queue,
			Handler: jobs.Handler(func(_ context.Context, j job) error {
				if j.Name != one.Name {
					return errors.New(j.Name)
				}
				return nil
			}),
			Report: func(h zkq.Handled) {
				if endings = append(endings, string(h.Ending)); len(endings) == 2 {
					stop()
				}
			},
		}
		if err := w.Run(ctx); err != nil || fmt.Sprint(endings) != "[done dead]" {
			t.Errorf("%v, %v", endings, err)
		}
	})
}

// A value that a worker could not decode is refused when it is put. Other values arrive
// as they were.
func TestTextThatIsNoTextIsRefusedOrArrives(t *testing.T) {
	const wrong = "caf\xe9"
	onEach(t, func(t *testing.T, c zkq.Codec) {
		coordinator := coordtest.NewStore().Open(coordtest.Options{})
		defer coordinator.Close()
		q := zkq.NewLockingQueue(coordinator, "q")
		defer q.Close()
		for _, put := range []struct {
			put  func() error
			same func(h *zkq.Held) bool
		}{
			{
				func() error { _, err := zkq.Typed[string]{Queue: q, Codec: c}.Put(t.Context(), wrong); return err },
				func(h *zkq.Held) bool {
					v, err := zkq.Typed[string]{Codec: c}.Decode(h)
					return err == nil && v == wrong
				},
			},
			{func() error {
				_, err := zkq.Typed[map[string]int]{Queue: q, Codec: c}.Put(t.Context(), map[string]int{wrong: 1})
				return err
			}, func(h *zkq.Held) bool {
				v, err := zkq.Typed[map[string]int]{Codec: c}.Decode(h)
				return err == nil && v[wrong] == 1
			}},
			{
				func() error {
					_, err := zkq.Typed[job]{Queue: q, Codec: c}.Put(t.Context(), job{Part: &job{Name: wrong}})
					return err
				},
				func(h *zkq.Held) bool {
					v, err := zkq.Typed[job]{Codec: c}.Decode(h)
					return err == nil && v.Part.Name == wrong
				},
			},
		} {
			err := put.put()
			if errors.Is(err, zkq.ErrInvalid) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			h, err := q.TryTake(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !put.same(h) {
				t.Errorf("%x was put and is something else", h.Value)
			}
			if err := h.Consume(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}
