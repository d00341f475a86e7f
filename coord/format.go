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

// CheckFormat reads the version of the layout, and writes it if there is none. It
// returns [ErrFormat] if the version is newer than [Format]. Drivers call it for every
// new session. Credentials that may not read or write the version are no error.
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
			// Another process may have written it: read again.
		case errors.Is(err, ErrUnknown):
			// The error must not be ErrUnknown: no commit of the caller's is in doubt.
			return fmt.Errorf("write %s: not answered (%v): %w", formatPath, err, ctx.Err())
		default:
			return fmt.Errorf("write %s: %w", formatPath, err)
		}
	}
}
