package testqueue

import (
	"github.com/zkq/zkq"
	"github.com/zkq/zkq/internal/testhook"
)

// Settings is the option that applies settings which users cannot change.
func Settings(s testhook.Settings) zkq.Option { return testhook.Option(s).(zkq.Option) }
