package zkqueue

import "testing"

func TestSequenceIsTheServersNumber(t *testing.T) {
	var last uint32
	for i, path := range []string{
		"/q/entry-100-0000000000", "/q/0000000001", "/q/n0000000002", "/q/n123456789-0000000003", "/q/--0000000004",
		"/q/entry-000-1000000000", "/q/entry-999-2147483647",
		"/q/entry-100--2147483648", "/q/-2147483647", "/q/entry-100--1000000001", "/q/entry-100--999999999", "/q/entry-100--000000005", "/q/entry-100--000000001",
	} {
		n, ok := sequenceNumber(path)
		if !ok || i > 0 && n <= last {
			t.Errorf("%s: %d, %v after %d", path, n, ok, last)
		}
		last = n
	}
	for _, path := range []string{
		"/0000000001/n", "/q/", "/q/n", "/q/000000001", "/q/entry-100-2147483648", "/q/n+000000001", "/q/n_000000001", "/q/n00000000x0", "/q/n 000000001", "/q/n-٠٠٠٠٠",
	} {
		if n, ok := sequenceNumber(path); ok {
			t.Errorf("%s: %d", path, n)
		}
	}
}
