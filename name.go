package zkq

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/priority"
)

// The longest queue name and the longest segment of one, in bytes.
const (
	MaxName    = layout.MaxName
	MaxSegment = layout.MaxSegment
)

// CheckName returns the canonical form of a queue's name, with one leading slash. For a
// name that no queue can have it returns an [ErrInvalidName] that says what is wrong.
//
// A name is segments joined by single slashes; one leading slash is optional.
//   - The name has at most [MaxName] bytes, and each segment at most [MaxSegment].
//   - No segment is empty, ".", "..", "entries" or "taken", or begins with "entry-".
//   - The first segment is neither "zkq" nor "zookeeper".
//   - The last segment is none of the names that zkq keeps beside the entries: delayed,
//     dead, broken, attempts, workers, retained, unique, config and count. These may be
//     earlier segments, if the next one is not a name that zkq gives to nodes there.
//   - Nothing can be put below the config or the count of a queue that has bounds.
//   - There are no control characters, and no characters beyond U+FFFF, such as emoji.
func CheckName(name string) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("queue name %q: %s: %w", name, fmt.Sprintf(format, args...), ErrInvalidName)
	}
	path := "/" + strings.TrimPrefix(name, "/")
	switch {
	case path == "/":
		return bad("is empty")
	case len(path) > MaxName:
		return bad("%d bytes, the limit is %d", len(path), MaxName)
	}
	if i := coord.BadByte(name); i >= 0 {
		if r, size := utf8.DecodeRuneInString(name[i:]); r == utf8.RuneError && size == 1 {
			return bad("byte %d is not UTF-8", i)
		} else if r > 0xffff {
			return bad("character %q at byte %d is beyond U+FFFF, and ZooKeeper takes none of those", r, i)
		}
		return bad("byte %d is not of a printable character", i)
	}
	if err := layout.CheckSegments(name); err != nil {
		return bad("%v", err)
	}
	return path, nil
}

// checkEntryName refuses a name that no entry can have.
func checkEntryName(name string) error {
	if _, ok := priority.Parse(name); !ok {
		return fmt.Errorf("entry name %q: entries are called entry-PPP-…, as put and ls print them: %w", name, ErrInvalidName)
	}
	return nil
}
