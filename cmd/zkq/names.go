package main

import (
	"context"
	"regexp"
	"strings"

	"github.com/zkq/zkq/priority"
)

// nameTail matches the end of an entry's name, which no other name of its queue shares. It is
// the number from ZooKeeper; on etcd, the producer and its count; or the id of a delayed
// put. ls shows it on a terminal, and every verb accepts it as NAME.
var nameTail = regexp.MustCompile(`^(?:[0-9]{10}|[0-9a-f]{8}-[0-9]{6,}|[0-9a-f]{16})$`)

// delayedPutName matches the name of a delayed put, without the time at which it is due.
var delayedPutName = regexp.MustCompile(`^put-[0-9]{3}-[0-9a-f]{16}$`)

// shortName returns the tail of a name, or the whole name if it has none.
func shortName(name string) string {
	last := strings.LastIndexByte(name, '-')
	if last < 0 {
		return name
	}
	if short := name[last+1:]; nameTail.MatchString(short) {
		return short
	}
	if before := strings.LastIndexByte(name[:last], '-'); nameTail.MatchString(name[before+1:]) {
		return name[before+1:]
	}
	return name
}

// checkEntry returns a usage error if name is neither an entry's name nor a tail.
func checkEntry(name string) error {
	if _, ok := priority.Parse(name); !ok && !nameTail.MatchString(name) {
		return usageError("", "entry name %q: allowed are the names that put and ls print, entry-PPP-… or the end of one", name)
	}
	return nil
}

// checkEntryOrDead also accepts the names of dead entries and delayed puts. Both are
// TIME-NAME, where TIME has 13 digits: milliseconds.
func checkEntryOrDead(name string) error {
	if at, was, _ := strings.Cut(name, "-"); len(at) == 13 && strings.Trim(at, "0123456789") == "" {
		if delayedPutName.MatchString(was) {
			return nil
		}
		return checkEntry(was)
	}
	return checkEntry(name)
}

// finder finds the names of a queue that end in each tail.
type finder interface {
	FindNames(ctx context.Context, tails ...string) (map[string][]string, error)
}

// noEntryError returns the error for a name or tail that no entry has.
func noEntryError(name string) *failure {
	if nameTail.MatchString(name) {
		return nothingError("no entry's name ends in -%s", name)
	}
	return nothingError("no entry %s", name)
}

// wholeNames returns the names with each tail replaced by the name that ends in it. A tail
// without a match stays: the caller reports that there is no such entry. A tail with
// several matches is a usage error.
func (k *call) wholeNames(ctx context.Context, q finder, names []string) ([]string, error) {
	var tails []string
	for _, name := range names {
		if nameTail.MatchString(name) {
			tails = append(tails, name)
		}
	}
	if len(tails) == 0 {
		return names, nil
	}
	ctx, cancel := k.changeContext(ctx)
	defer cancel()
	found, err := q.FindNames(ctx, tails...)
	if err != nil {
		return nil, err
	}
	whole := make([]string, len(names))
	for i, name := range names {
		whole[i] = name
		switch matches := found[name]; len(matches) {
		case 0:
		case 1:
			whole[i] = matches[0]
		default:
			return nil, usageError("zkq ls --full "+k.queue+" shows whole names",
				"%s is the end of %d names, among them %s and %s", name, len(matches), matches[0], matches[1])
		}
	}
	return whole, nil
}
