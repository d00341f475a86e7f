package testetcd_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/zkq/zkq/internal/testetcd"
)

func TestMain(m *testing.M) {
	testetcd.Main()
	goleak.VerifyTestMain(m)
}

func TestAnswerOfTheTransactionMeantIsLostAfterItWasApplied(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := testetcd.StartFor(t, 1, testetcd.Options{})
	direct, by := c.Client(t), testetcd.NewLink(t, c.Endpoints()...)
	there, err := clientv3.New(clientv3.Config{Endpoints: by.Addresses(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	txn := func(value string) error {
		_, err := there.Txn(ctx).Then(clientv3.OpPut("k", value)).Commit()
		return err
	}
	meant := func(request []byte) bool { return bytes.Contains(request, []byte("lost")) }
	for n := range 20 { // later headers are written by what earlier ones said
		by.LoseAnswers(1, meant)
		if _, err := there.Put(ctx, "k", "lost, but no transaction"); err != nil {
			t.Fatal(err)
		}
		if err := txn("kept"); err != nil {
			t.Fatalf("another transaction: %v", err)
		}
		value := fmt.Sprintf("lost %d", n)
		if err := txn(value); err == nil {
			t.Fatal("the transaction meant was answered")
		}
		if r, err := direct.Get(ctx, "k"); err != nil || string(r.Kvs[0].Value) != value {
			t.Errorf("%v, %v: the transaction whose answer was lost is not there", r, err)
		}
		if lost := by.AnswersLost(); lost != n+1 {
			t.Fatalf("%d answers were lost, want %d", lost, n+1)
		}
	}
}
