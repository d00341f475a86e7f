package zkq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/internal/testqueue"
)

type mail struct {
	To   string
	Urgs int `json:"n"`
}

func TestTypedValuesArriveAsTheyWerePut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		mails := zkq.Typed[mail]{Queue: q}
		if _, err := mails.Put(env.Ctx, mail{"a", 1}); err != nil {
			t.Fatal(err)
		}
		if names, err := mails.PutAll(env.Ctx, []mail{{"b", 2}, {"c", 3}}, zkq.WithPriority(5)); err != nil || len(names) != 2 {
			t.Fatal(names, err)
		}
		if es := env.Values(q); fmt.Sprint(es) != `[{"To":"b","n":2} {"To":"c","n":3} {"To":"a","n":1}]` {
			t.Errorf("the entries hold %v", es)
		}
		var got []mail
		k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.JSON(func(ctx context.Context, m mail) error {
			if zkq.HeldFrom(ctx) == nil {
				t.Error("the entry cannot be had")
			}
			got = append(got, m)
			return nil
		})})
		time.Sleep(time.Second)
		k.quit()
		if fmt.Sprint(got) != "[{b 2} {c 3} {a 1}]" {
			t.Errorf("got %v", got)
		}
	})
}

func TestWhatCannotBeDecodedIsDeadAndSaysWhy(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for _, value := range []string{"", "no", `{"To":1}`, `{"To":"a"} and more`} {
			env.Put(q, value)
		}
		k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.JSON(func(_ context.Context, m mail) error {
			t.Errorf("decoded %v", m)
			return nil
		})})
		time.Sleep(time.Second)
		k.quit()
		es := env.Entries(q)
		if len(es) != 4 {
			t.Errorf("%d are left", len(es))
		}
		for _, e := range es {
			if e.State != zkq.StateDead || !strings.HasPrefix(e.Reason, "decode zkq_test.mail: ") {
				t.Errorf("left is %+v", e)
			}
		}
	})
}

func TestWhatCannotBeEncodedIsNotPut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		functions := zkq.Typed[any]{Queue: q}
		_, err := functions.Put(env.Ctx, func() {})
		env.WantErr(err, zkq.ErrInvalid)
		_, err = functions.PutAll(env.Ctx, []any{1, func() {}})
		env.WantErr(err, zkq.ErrInvalid)
		if !strings.Contains(err.Error(), "value 1") || errors.Is(err, zkq.ErrUnknown) {
			t.Errorf("error %v", err)
		}
		env.WantEmpty(q)
	})
}

// encoding/json makes U+FFFD of what is not UTF-8, and says nothing.
func TestTextThatIsNoTextIsRefusedAtPut(t *testing.T) {
	const wrong = "caf\xe9"
	type inner struct {
		Text string             `json:"text,omitempty"`
		Map  map[string][]any   `json:"map,omitempty"`
		Ptr  *string            `json:"ptr,omitempty"`
		Skip string             `json:"-"`
		Raw  json.RawMessage    `json:"raw,omitempty"`
		Data []byte             `json:"data,omitempty"`
		Own  map[string]ownText `json:"own,omitempty"`
	}
	text := wrong
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		strs, structs, keys := zkq.Typed[string]{Queue: q}, zkq.Typed[[]inner]{Queue: q}, zkq.Typed[map[string]int]{Queue: q}
		refused := func(err error) {
			t.Helper()
			if env.WantErr(err, zkq.ErrInvalid); !strings.Contains(err.Error(), "is not UTF-8") {
				t.Errorf("error %v", err)
			}
		}
		_, err := strs.Put(env.Ctx, wrong)
		refused(err)
		_, err = strs.PutAll(env.Ctx, []string{"fine", wrong})
		refused(err)
		_, err = keys.Put(env.Ctx, map[string]int{wrong: 1})
		refused(err)
		for _, v := range []inner{{Text: wrong}, {Map: map[string][]any{"a": {1, wrong}}}, {Map: map[string][]any{wrong: nil}}, {Ptr: &text}} {
			_, err = structs.Put(env.Ctx, []inner{{}, v})
			refused(err)
		}
		env.WantEmpty(q)
		for _, v := range []inner{
			{Text: "caf\u00e9 \ufffd \\ufffd"}, {Skip: wrong}, {Raw: json.RawMessage(`"\ufffd"`)}, {Data: []byte(wrong)}, {Own: map[string]ownText{"a": wrong}},
		} {
			if _, err = structs.Put(env.Ctx, []inner{v}); err != nil {
				t.Errorf("%+v: %v", v, err)
			}
			h := env.Take(q)
			if got, err := structs.Decode(h); err != nil || got[0].Text != v.Text {
				t.Errorf("%+v came out as %+v, %v", v, got, err)
			}
			env.Consume(h)
		}
	})
}

// ownText says itself how it is written.
type ownText string

func (o ownText) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", string(o)), nil }

func TestWhatNoWorkerCouldDecodeIsRefusedAtPut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		_, err := zkq.Typed[fmt.Stringer]{Queue: q}.Put(env.Ctx, time.Second)
		env.WantErr(err, zkq.ErrInvalid)
		env.WantEmpty(q)
	})
}
