package coord

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// Format is the version of the layout that this module reads and writes, kept
// in the node /zkq/format.
const Format = 1

const formatPath = "/zkq/format"

// CheckFormat reads the layout's version and writes it where there is none. A
// newer one than [Format] is [ErrFormat]. Drivers call it for every session
// before they hand it out; credentials that may not write are no obstacle.
func CheckFormat(ctx context.Context, s Session) error {
	for {
		n, err := s.Get(ctx, formatPath)
		switch {
		case err == nil:
			v, perr := strconv.Atoi(string(n.Value))
			if perr != nil || v < 1 || v > Format {
				return fmt.Errorf("%s is %q and this program knows %d: use a newer zkq: %w", formatPath, n.Value, Format, ErrFormat)
			}
			return nil
		case !errors.Is(err, ErrNotExist):
			if errors.Is(err, ErrForbidden) {
				return nil
			}
			return fmt.Errorf("read %s: %w", formatPath, err)
		}
		_, err = s.Commit(ctx, Create(formatPath, []byte(strconv.Itoa(Format))))
		switch {
		case err == nil, errors.Is(err, ErrForbidden):
			return nil
		case errors.Is(err, ErrExist), errors.Is(err, ErrUnknown) && ctx.Err() == nil:
			// Another process was first, or it is there or not: read again.
		case errors.Is(err, ErrUnknown):
			// Whether it is there is nobody's question: no commit of the caller's is in doubt.
			return fmt.Errorf("write %s: not answered (%v): %w", formatPath, err, ctx.Err())
		default:
			return fmt.Errorf("write %s: %w", formatPath, err)
		}
	}
}
