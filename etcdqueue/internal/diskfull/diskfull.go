// Package diskfull is the answer by which the process that runs an embedded store
// refuses a request for which its disk has no space.
package diskfull

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Err is the answer. Nothing was changed.
var Err = status.Error(codes.ResourceExhausted, "no space left on the disk of the store")
