package coordtest_test

import (
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/coord/coordtest/conformance"
)

// memory adapts a Store to the suite.
type memory struct{ *coordtest.Store }

func (m memory) Open(t *testing.T) coord.Coordinator {
	return m.Store.Open(coordtest.Options{Timeout: 6 * time.Second})
}

func TestMemoryConforms(t *testing.T) {
	conformance.Run(t, conformance.Factory{
		New:     func(t *testing.T) conformance.Service { return memory{coordtest.NewStore()} },
		Timeout: 6 * time.Second,
		Virtual: true,
	})
}

func TestMemoryLikeEtcdConforms(t *testing.T) {
	conformance.Run(t, conformance.Factory{
		New:     func(t *testing.T) conformance.Service { return memory{coordtest.NewEtcdStore()} },
		Timeout: 6 * time.Second,
		Virtual: true,
	})
}
