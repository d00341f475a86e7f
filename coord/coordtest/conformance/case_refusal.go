package conformance

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/zkq/zkq/coord"
)

// refusals are ops that a service refuses. Their fences are old ones: the node /q/there
// and the ephemeral node /q/lock were written since.
var refusals = []struct {
	name string
	op   func(there, lock coord.Fence) coord.Op
	err  error
}{
	{"CreateOfTaken", func(_, _ coord.Fence) coord.Op { return coord.Create("/q/there", nil) }, coord.ErrExist},
	{"EphemeralOfTaken", func(_, _ coord.Fence) coord.Op { return coord.CreateEphemeral("/q/lock", nil) }, coord.ErrExist},
	{"SetOfMissing", func(f, _ coord.Fence) coord.Op { return coord.Set("/q/missing", nil, f) }, coord.ErrNotExist},
	{"SetAtOldFence", func(f, _ coord.Fence) coord.Op { return coord.Set("/q/there", nil, f) }, coord.ErrVersion},
	{"TouchOfMissing", func(f, _ coord.Fence) coord.Op { return coord.Touch("/q/missing", nil, f) }, coord.ErrNotExist},
	{"TouchAtOldFence", func(f, _ coord.Fence) coord.Op { return coord.Touch("/q/there", nil, f) }, coord.ErrVersion},
	{"DeleteOfMissing", func(f, _ coord.Fence) coord.Op { return coord.Delete("/q/missing", f) }, coord.ErrNotExist},
	{"DeleteAtOldFence", func(f, _ coord.Fence) coord.Op { return coord.Delete("/q/there", f) }, coord.ErrVersion},
	{"CheckOfMissing", func(f, _ coord.Fence) coord.Op { return coord.Check("/q/missing", f) }, coord.ErrNotExist},
	{"CheckAtOldFence", func(f, _ coord.Fence) coord.Op { return coord.Check("/q/there", f) }, coord.ErrVersion},
	{"ReplaceOfMissing", func(_, l coord.Fence) coord.Op { return coord.Replace("/q/missing", nil, l) }, coord.ErrNotExist},
	{"ReplaceAtOldFence", func(_, l coord.Fence) coord.Op { return coord.Replace("/q/lock", nil, l) }, coord.ErrVersion},
	{"SetInMissingDirectory", func(f, _ coord.Fence) coord.Op { return coord.Set("/q/no/such/node", nil, f) }, coord.ErrNotExist},
	{"DeleteInMissingDirectory", func(f, _ coord.Fence) coord.Op { return coord.Delete("/q/no/such/node", f) }, coord.ErrNotExist},
}

var refusalCases = append(casesOfRefusals(), []testCase{
	{name: "RefusalNamesTheFirst", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/there", nil)).Fence
		p.commitOne(coord.Touch("/q/there", nil, f))
		_, err := p.Commit(e.ctx, coord.Create("/q/new", nil), coord.Check("/q/missing", 0), coord.Create("/q/there", nil), coord.Delete("/q/missing2", 0))
		var r *coord.Refusal
		if !errors.As(err, &r) || r.Index != 1 || !errors.Is(err, coord.ErrNotExist) {
			e.Errorf("%v, want op 1", err)
		}
		_, err = p.Commit(e.ctx, coord.CreateSequential("/q/new-", nil), coord.Create("/q/new", nil), coord.Set("/q/there", nil, f), coord.Check("/q/missing", 0))
		if !errors.As(err, &r) || r.Index != 2 || !errors.Is(err, coord.ErrVersion) {
			e.Errorf("%v, want op 2", err)
		}
	}},
	{name: "RefusedAmongMany", run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/there", nil))
		var ops []coord.Op
		for i := range p.Limits().CommitOps {
			ops = append(ops, coord.Create(fmt.Sprintf("/q/n%d", i), nil))
		}
		for _, at := range []int{0, len(ops) / 2, len(ops) - 1} {
			was := ops[at]
			ops[at] = coord.Create("/q/there", nil)
			var r *coord.Refusal
			if _, err := p.Commit(e.ctx, ops...); !errors.As(err, &r) || r.Index != at {
				e.Errorf("%v, want op %d", err, at)
			}
			ops[at] = was
		}
		e.wantEqual(p.freshNames("/q"), "there", "listed")
	}},
	{name: "RefusedBatchOfCreates", run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/there", nil))
		ops := make([]coord.Op, min(1000, p.Limits().Creates))
		for i := range ops {
			ops[i] = coord.Create(fmt.Sprintf("/q/n%d", i), nil)
		}
		at := len(ops) * 2 / 3
		ops[at] = coord.Create("/q/there", nil)
		var r *coord.Refusal
		if _, err := p.Commit(e.ctx, ops...); !errors.As(err, &r) || r.Index != at || !errors.Is(r, coord.ErrExist) {
			e.Errorf("%v, want op %d", err, at)
		}
		e.wantEqual(p.freshNames("/q"), "there", "listed")
	}},
	{name: "RefusedSequentialLeavesNothing", run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/there", nil))
		_, err := p.Commit(e.ctx, coord.CreateSequential("/q/n-", nil), coord.CreateSequential("/q/n-", nil), coord.Create("/q/there", nil))
		e.wantError(err, coord.ErrExist, "commit")
		e.wantEqual(p.freshNames("/q"), "there", "listed")
	}},
	{name: "SessionGoesOnAfterRefusals", run: func(e *env) {
		p := e.openPeer()
		for i := range 50 {
			_, err := p.Commit(e.ctx, coord.Check("/q/missing", coord.Fence(i)))
			e.wantError(err, coord.ErrNotExist, "check")
		}
		p.commitOne(coord.Create("/q/a", nil))
	}},
	{name: "TwoOpsOfOnePathAreInvalid", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", []byte("v"))).Fence
		for _, ops := range [][]coord.Op{
			{coord.Create("/q/b", nil), coord.Create("/q/b", nil)},
			{coord.Create("/q/b", nil), coord.Set("/q/b", nil, 0)},
			{coord.Set("/q/a", nil, f), coord.Touch("/q/a", nil, f)},
			{coord.Check("/q/a", f), coord.Delete("/q/a", f)},
			{coord.Delete("/q/a", f), coord.Create("/q/c", nil), coord.Create("/q/a", nil)},
			{coord.CreateEphemeral("/q/b", nil), coord.Replace("/q/b", nil, 1)},
		} {
			_, err := p.Commit(e.ctx, ops...)
			e.wantError(err, coord.ErrInvalid, fmt.Sprint(ops))
		}
		e.wantEqual(p.freshNames("/q"), "a", "listed")
		p.commitOne(coord.Check("/q/a", f))
	}},
	{name: "MalformedPathsAreInvalid", run: func(e *env) {
		p := e.openPeer()
		for _, path := range []string{
			"", "a", "a/b", "/", "/a/", "//a", "/a//b", "/.", "/a/../b", "/a/./b",
			"/a\x00b", "/a\nb", "/a\x7f", "/a\u0085", "/\ue000", "/\uf8ff", "/\xff\xfe", "/a\ufffd",
		} {
			for _, op := range []coord.Op{
				coord.Create(path, nil), coord.CreateEphemeral(path, nil), coord.Set(path, nil, 0),
				coord.Touch(path, nil, 0), coord.Delete(path, 0), coord.Check(path, 0), coord.Replace(path, nil, 0),
			} {
				_, err := p.Commit(e.ctx, op)
				e.wantError(err, coord.ErrInvalid, fmt.Sprintf("%v %q", op.Kind, path))
			}
			_, err := p.Get(e.ctx, path)
			e.wantError(err, coord.ErrInvalid, fmt.Sprintf("get %q", path))
			if path == "/" {
				continue
			}
			_, err = p.List(e.ctx, path, coord.ListOptions{})
			e.wantError(err, coord.ErrInvalid, fmt.Sprintf("list %q", path))
			_, err = p.Count(e.ctx, path)
			e.wantError(err, coord.ErrInvalid, fmt.Sprintf("count %q", path))
			_, err = p.Watch(e.ctx, "/q", path)
			e.wantError(err, coord.ErrInvalid, fmt.Sprintf("watch %q", path))
		}
		p.commitOne(coord.Create("/q/a", nil))
	}},
	{name: "UnknownKindIsInvalid", run: func(e *env) {
		p := e.openPeer()
		for _, op := range []coord.Op{{Path: "/q/a"}, {Kind: coord.KindReplace + 1, Path: "/q/a"}} {
			_, err := p.Commit(e.ctx, coord.Create("/q/b", nil), op)
			e.wantError(err, coord.ErrInvalid, op.Kind.String())
		}
		e.wantEqual(p.freshNames("/q"), "", "listed")
	}},
	{name: "GetOfMissingNode", run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/a", nil))
		for _, path := range []string{"/q/b", "/q/aa", "/no/such/directory"} {
			_, err := p.Get(e.ctx, path)
			e.wantError(err, coord.ErrNotExist, path)
		}
	}},
}...)

// casesOfRefusals returns a case for each refusal. It tries the op at each position of a
// commit: the error must name it, and nothing of the commit may be applied.
func casesOfRefusals() []testCase {
	var cases []testCase
	for _, r := range refusals {
		cases = append(cases, testCase{name: "Refused" + r.name, run: func(e *env) {
			p := e.openPeer()
			made := p.commit(coord.Create("/q/there", []byte("1")), coord.CreateEphemeral("/q/lock", nil), coord.Create("/q/other", []byte("1")))
			there, lock, other := made[0].Fence, made[1].Fence, made[2].Fence
			p.commit(coord.Set("/q/there", []byte("2"), there), coord.Touch("/q/lock", nil, lock))
			op := r.op(there, lock)
			for at := range 4 {
				ops := []coord.Op{coord.Create("/q/new", nil), coord.Set("/q/other", []byte("2"), other), coord.CreateSequential("/q/n-", nil)}
				ops = append(ops[:at:at], append([]coord.Op{op}, ops[at:]...)...)
				_, err := p.Commit(e.ctx, ops...)
				e.wantError(err, r.err, fmt.Sprintf("at %d", at))
				var refusal *coord.Refusal
				if !errors.As(err, &refusal) {
					e.Errorf("at %d: no *coord.Refusal: %v", at, err)
				} else if refusal.Index != at || !reflect.DeepEqual(refusal.Op, op) || !errors.Is(refusal, r.err) {
					e.Errorf("at %d: %+v", at, refusal)
				}
				e.wantEqual(errors.Is(err, coord.ErrUnknown), false, "refused and unknown")
			}
			e.wantEqual(p.freshNames("/q"), "lock other there", "listed")
			e.wantEqual(string(p.get("/q/other").Value), "1", "value of the op beside")
			e.wantEqual(string(p.get("/q/there").Value), "2", "value")
		}})
	}
	return cases
}
