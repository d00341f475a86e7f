package conformance

import (
	"errors"
	"fmt"

	"github.com/zkq/zkq/coord"
)

var limitCases = []testCase{
	{name: "LimitsAreUsable", run: func(e *env) {
		l := e.openPeer().Limits()
		if l.ValueBytes < 1<<19 || l.CommitBytes < l.ValueBytes || l.CommitOps < 16 || l.Creates < l.CommitOps {
			e.Errorf("%+v", l)
		}
	}},
	{name: "ValueTooLarge", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", []byte("v"))).Fence
		v := make([]byte, p.Limits().ValueBytes+1)
		for _, op := range []coord.Op{coord.Create("/q/b", v), coord.CreateEphemeral("/q/b", v), coord.CreateSequential("/q/b", v), coord.Set("/q/a", v, f)} {
			_, err := p.Commit(e.ctx, op)
			wantTooLarge(e, err, len(v), p.Limits().ValueBytes)
		}
		wantNothingApplied(p, "a")
	}},
	{name: "CommitOfTooManyBytes", run: func(e *env) {
		p := e.openPeer()
		ops, size := createsOfSize(p.Limits(), p.Limits().CommitBytes+1)
		_, err := p.Commit(e.ctx, ops...)
		wantTooLarge(e, err, size, p.Limits().CommitBytes)
		wantNothingApplied(p, "")
	}},
	{name: "CommitOfMostBytes", run: func(e *env) {
		p := e.openPeer()
		ops, _ := createsOfSize(p.Limits(), p.Limits().CommitBytes)
		p.commit(ops...)
		e.wantEqual(len(p.list("/q", coord.ListOptions{Fresh: true}).Nodes), len(ops), "nodes")
	}},
	{name: "CommitOfTooManyOps", run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/a", nil))
		n := p.Limits().CommitOps + 1
		ops := []coord.Op{coord.CreateEphemeral("/q/lock", nil)}
		for i := range n - 1 {
			ops = append(ops, coord.Create(fmt.Sprintf("/q/n%d", i), nil))
		}
		_, err := p.Commit(e.ctx, ops...)
		wantTooLarge(e, err, n, n-1)
		wantNothingApplied(p, "a")
	}},
	{name: "CommitOfMostOps", run: func(e *env) {
		// Every kind of op has its share, as in claims and finishes of many workers.
		p := e.openPeer()
		n := p.Limits().CommitOps
		var made []coord.Op
		for i := range n {
			made = append(made, coord.Create(fmt.Sprintf("/q/n%04d", i), []byte("v")))
		}
		r := p.commit(made...)
		var ops []coord.Op
		for i, r := range r {
			switch i % 6 {
			case 0:
				ops = append(ops, coord.Set(r.Path, []byte("w"), r.Fence))
			case 1:
				ops = append(ops, coord.Touch(r.Path, []byte("v"), r.Fence))
			case 2:
				ops = append(ops, coord.Delete(r.Path, r.Fence))
			case 3:
				ops = append(ops, coord.Check(r.Path, r.Fence))
			case 4:
				ops = append(ops, coord.CreateEphemeral(r.Path+"-lock", nil))
			case 5:
				ops = append(ops, coord.CreateSequential("/q/s-", nil))
			}
		}
		for _, r := range p.commit(ops...)[:12] {
			if r.Fence != 0 {
				e.wantEqual(p.get(r.Path).Fence, r.Fence, r.Path)
			}
		}
	}},
	{name: "LocksOfMostOps", run: func(e *env) {
		p := e.openPeer()
		var ops []coord.Op
		for i := range p.Limits().CommitOps {
			ops = append(ops, coord.CreateEphemeral(fmt.Sprintf("/q/n%04d", i), nil))
		}
		var finish []coord.Op
		for _, r := range p.commit(ops...) {
			finish = append(finish, coord.Delete(r.Path, r.Fence))
		}
		p.commit(finish...)
		e.wantEqual(p.freshNames("/q"), "", "listed")
	}},
	{name: "MostCreates", run: func(e *env) {
		p := e.openPeer()
		ops := make([]coord.Op, p.Limits().Creates)
		for i := range ops {
			ops[i] = coord.CreateSequential("/q/n-", []byte(fmt.Sprint(i)))
		}
		var paths []string
		for _, r := range p.commit(ops...) {
			paths = append(paths, r.Path)
		}
		wantAscending(e, paths)
		l := p.list("/q", coord.ListOptions{Fresh: true, Values: true})
		e.wantEqual(len(l.Nodes), len(ops), "nodes")
		for i, n := range l.Nodes {
			if string(n.Value) != fmt.Sprint(i) {
				e.Fatalf("%s, the %d., has the value %s", n.Path, i, n.Value)
			}
		}
	}},
	{name: "TooManyCreates", run: func(e *env) {
		p := e.openPeer()
		ops := make([]coord.Op, p.Limits().Creates+1)
		for i := range ops {
			ops[i] = coord.CreateSequential("/q/n-", nil)
		}
		_, err := p.Commit(e.ctx, ops...)
		wantTooLarge(e, err, len(ops), len(ops)-1)
		wantNothingApplied(p, "")
	}},
	{name: "LargestValueIsClaimed", run: func(e *env) {
		// A value that could be put can be claimed: it is sent again beside a lock.
		p := e.openPeer()
		v := make([]byte, p.Limits().ValueBytes)
		r := p.commitOne(coord.CreateSequential("/q/entries/entry-100-", v))
		c := p.commit(coord.Touch(r.Path, v, r.Fence), coord.CreateEphemeral("/q/taken/"+r.Path[len("/q/entries/"):], []byte("0123456789abcdef0123456789abcdef")))
		p.commit(coord.Delete(c[0].Path, c[0].Fence), coord.Delete(c[1].Path, c[1].Fence))
	}},
}

// createsOfSize returns creates whose size is the given one, as coord.CheckOps counts it.
func createsOfSize(l coord.Limits, size int) ([]coord.Op, int) {
	var ops []coord.Op
	for left := size; left > 0; {
		path := fmt.Sprintf("/q/n%02d", len(ops))
		n := min(left-coord.OpOverhead-len(path), l.ValueBytes/4)
		if rest := left - coord.OpOverhead - len(path) - n; rest > 0 && rest < 1024 {
			n -= 1024 // leave the last one room for its overhead
		}
		ops = append(ops, coord.Create(path, make([]byte, n)))
		left -= coord.OpOverhead + len(path) + n
	}
	return ops, size
}

// wantTooLarge asserts that err is a coord.LimitError with that size and limit.
func wantTooLarge(e *env, err error, size, limit int) {
	e.Helper()
	e.wantError(err, coord.ErrTooLarge, "error")
	var l *coord.LimitError
	if !errors.As(err, &l) || l.Size != size || l.Limit != limit {
		e.Errorf("%v, want size %d and limit %d", err, size, limit)
	}
}

// wantNothingApplied asserts that /q holds the wanted names only, and that the session
// goes on.
func wantNothingApplied(p *peer, want string) {
	p.Helper()
	p.wantEqual(p.freshNames("/q"), want, "listed")
	select {
	case <-p.Done():
		p.Error("the session is over")
	default:
	}
	p.commitOne(coord.CreateEphemeral("/q/zz", nil))
}
