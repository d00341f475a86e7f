package conformance

import (
	"errors"
	"fmt"

	"github.com/zkq/zkq/coord"
)

var limitCases = []example{
	{name: "LimitsAreUsable", run: func(e *env) {
		l := e.open().Limits()
		if l.ValueBytes < 1<<19 || l.CommitBytes < l.ValueBytes || l.CommitOps < 16 || l.Creates < l.CommitOps {
			e.Errorf("%+v", l)
		}
	}},
	{name: "ValueTooLarge", run: func(e *env) {
		p := e.open()
		f := p.do(coord.Create("/q/a", []byte("v"))).Fence
		v := make([]byte, p.Limits().ValueBytes+1)
		for _, op := range []coord.Op{coord.Create("/q/b", v), coord.CreateEphemeral("/q/b", v), coord.CreateSequential("/q/b", v), coord.Set("/q/a", v, f)} {
			_, err := p.Commit(e.ctx, op)
			tooLarge(e, err, len(v), p.Limits().ValueBytes)
		}
		unharmed(p, "a")
	}},
	{name: "CommitOfTooManyBytes", run: func(e *env) {
		p := e.open()
		ops, size := filled(p.Limits(), p.Limits().CommitBytes+1)
		_, err := p.Commit(e.ctx, ops...)
		tooLarge(e, err, size, p.Limits().CommitBytes)
		unharmed(p, "")
	}},
	{name: "CommitOfMostBytes", run: func(e *env) {
		p := e.open()
		ops, _ := filled(p.Limits(), p.Limits().CommitBytes)
		p.commit(ops...)
		e.equal(len(p.list("/q", coord.ListOptions{Fresh: true}).Nodes), len(ops), "nodes")
	}},
	{name: "CommitOfTooManyOps", run: func(e *env) {
		p := e.open()
		p.do(coord.Create("/q/a", nil))
		n := p.Limits().CommitOps + 1
		ops := []coord.Op{coord.CreateEphemeral("/q/lock", nil)}
		for i := range n - 1 {
			ops = append(ops, coord.Create(fmt.Sprintf("/q/n%d", i), nil))
		}
		_, err := p.Commit(e.ctx, ops...)
		tooLarge(e, err, n, n-1)
		unharmed(p, "a")
	}},
	{name: "CommitOfMostOps", run: func(e *env) {
		// Every kind has its share: claims and finishes of many workers.
		p := e.open()
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
				e.equal(p.get(r.Path).Fence, r.Fence, r.Path)
			}
		}
	}},
	{name: "LocksOfMostOps", run: func(e *env) {
		p := e.open()
		var ops []coord.Op
		for i := range p.Limits().CommitOps {
			ops = append(ops, coord.CreateEphemeral(fmt.Sprintf("/q/n%04d", i), nil))
		}
		var finish []coord.Op
		for _, r := range p.commit(ops...) {
			finish = append(finish, coord.Delete(r.Path, r.Fence))
		}
		p.commit(finish...)
		e.equal(p.fresh("/q"), "", "listed")
	}},
	{name: "MostCreates", run: func(e *env) {
		p := e.open()
		ops := make([]coord.Op, p.Limits().Creates)
		for i := range ops {
			ops[i] = coord.CreateSequential("/q/n-", []byte(fmt.Sprint(i)))
		}
		var paths []string
		for _, r := range p.commit(ops...) {
			paths = append(paths, r.Path)
		}
		ascending(e, paths)
		l := p.list("/q", coord.ListOptions{Fresh: true, Values: true})
		e.equal(len(l.Nodes), len(ops), "nodes")
		for i, n := range l.Nodes {
			if string(n.Value) != fmt.Sprint(i) {
				e.Fatalf("%s, the %d., has the value %s", n.Path, i, n.Value)
			}
		}
	}},
	{name: "TooManyCreates", run: func(e *env) {
		p := e.open()
		ops := make([]coord.Op, p.Limits().Creates+1)
		for i := range ops {
			ops[i] = coord.CreateSequential("/q/n-", nil)
		}
		_, err := p.Commit(e.ctx, ops...)
		tooLarge(e, err, len(ops), len(ops)-1)
		unharmed(p, "")
	}},
	{name: "LargestValueIsClaimed", run: func(e *env) {
		// What was put can be claimed: the value travels again beside a lock.
		p := e.open()
		v := make([]byte, p.Limits().ValueBytes)
		r := p.do(coord.CreateSequential("/q/entries/entry-100-", v))
		c := p.commit(coord.Touch(r.Path, v, r.Fence), coord.CreateEphemeral("/q/taken/"+r.Path[len("/q/entries/"):], []byte("0123456789abcdef0123456789abcdef")))
		p.commit(coord.Delete(c[0].Path, c[0].Fence), coord.Delete(c[1].Path, c[1].Fence))
	}},
}

// filled makes creates that measure size as CheckOps counts.
func filled(l coord.Limits, size int) ([]coord.Op, int) {
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

func tooLarge(e *env, err error, size, limit int) {
	e.Helper()
	e.is(err, coord.ErrTooLarge, "error")
	var l *coord.LimitError
	if !errors.As(err, &l) || l.Size != size || l.Limit != limit {
		e.Errorf("%v, want size %d and limit %d", err, size, limit)
	}
}

// unharmed asserts that nothing was applied, and that the session did not suffer.
func unharmed(p *peer, want string) {
	p.Helper()
	p.equal(p.fresh("/q"), want, "listed")
	select {
	case <-p.Done():
		p.Error("the session is over")
	default:
	}
	p.do(coord.CreateEphemeral("/q/zz", nil))
}
