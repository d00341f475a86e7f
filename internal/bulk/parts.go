package bulk

import "iter"

// UnderWay is how many parts of a long work are under way at a time: enough that the service
// always has the next commit, and few enough that the commits of others do not wait for long.
const UnderWay = 4

// InParts yields the results of do for parts of the items, size items in each, in the order of the
// items. Up to underWay calls of do run at a time, in goroutines of their own; with one it is the
// caller's goroutine. If the loop ends early, no other call begins, and InParts returns when those
// that run have ended.
func InParts[T, R any](items []T, size, underWay int, do func(part []T) R) iter.Seq[R] {
	return func(yield func(R) bool) {
		if underWay == 1 {
			for len(items) > 0 {
				n := min(size, len(items))
				if !yield(do(items[:n])) {
					return
				}
				items = items[n:]
			}
			return
		}
		var running []chan R // in the order of the items
		defer func() {
			for _, result := range running {
				<-result
			}
		}()
		for len(items) > 0 || len(running) > 0 {
			for len(items) > 0 && len(running) < underWay {
				part := items[:min(size, len(items))]
				items = items[len(part):]
				result := make(chan R, 1)
				running = append(running, result)
				go func() { result <- do(part) }()
			}
			first := running[0]
			result := <-first
			running = running[1:]
			if !yield(result) {
				return
			}
		}
	}
}
