package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq"
)

type mail struct {
	To   string
	Urgs int `json:"n"`
}

func TestTypedValuesArriveAsTheyWerePut(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		mails := zkq.Typed[mail]{Queue: q}
		if _, err := mails.Put(b.ctx, mail{"a", 1}); err != nil {
			t.Fatal(err)
		}
		if names, err := mails.PutAll(b.ctx, []mail{{"b", 2}, {"c", 3}}, zkq.WithPriority(5)); err != nil || len(names) != 2 {
			t.Fatal(names, err)
		}
		if es := b.values(q); fmt.Sprint(es) != `[{"To":"b","n":2} {"To":"c","n":3} {"To":"a","n":1}]` {
			t.Errorf("the entries hold %v", es)
		}
		var got []mail
		k := b.work(&zkq.Worker{Queue: q, Handler: zkq.JSON(func(ctx context.Context, m mail) error {
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
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		for _, value := range []string{"", "no", `{"To":1}`, `{"To":"a"} and more`} {
			b.put(q, value)
		}
		k := b.work(&zkq.Worker{Queue: q, Handler: zkq.JSON(func(_ context.Context, m mail) error {
			t.Errorf("decoded %v", m)
			return nil
		})})
		time.Sleep(time.Second)
		k.quit()
		es := b.entries(q)
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
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		functions := zkq.Typed[any]{Queue: q}
		_, err := functions.Put(b.ctx, func() {})
		b.want(err, zkq.ErrInvalid)
		_, err = functions.PutAll(b.ctx, []any{1, func() {}})
		b.want(err, zkq.ErrInvalid)
		if !strings.Contains(err.Error(), "value 1") || errors.Is(err, zkq.ErrUnknown) {
			t.Errorf("error %v", err)
		}
		b.empty(q)
	})
}
