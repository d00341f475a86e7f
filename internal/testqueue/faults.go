package testqueue

import "github.com/zkq/zkq/coord/coordtest"

// Losses are the ways in which the answers to one or two requests get lost.
var Losses = map[string]func(*coordtest.Coordinator){
	"applied":     func(c *coordtest.Coordinator) { c.DropReply() },
	"not applied": func(c *coordtest.Coordinator) { c.DropRequest() },
	"both":        func(c *coordtest.Coordinator) { c.DropRequest(); c.DropReply() },
	"twice":       func(c *coordtest.Coordinator) { c.DropReply(); c.DropReply() },
}
