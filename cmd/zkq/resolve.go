package main

import (
	"context"
	"strconv"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func resolveVerb() verb {
	return verb{
		name:  "resolve",
		args:  "TOKEN",
		usage: "say what became of a put whose outcome was unknown",
		more: `TOKEN is what a put that ended with status 8 left on stderr. Prints "applied" and how
many entries of its input that put had put then; status 3 if it was not applied, and
never will be. It can be asked for a day.`,
		example: []string{"zkq resolve 9f86d081884c7d65-00-17"},
		min:     1, max: 1,
		run: resolve,
	}
}

// resolution is the JSON of resolve's result.
type resolution struct {
	Token   string `json:"token"`
	Applied bool   `json:"applied"`
	Entries int    `json:"entries"`
}

// resolve prints whether the put of a token was applied. If it was not, resolve makes sure
// that it never will be.
func resolve(ctx context.Context, k *call) error {
	t, err := zkq.ParseToken(k.words[0])
	if err != nil {
		return usageError("", "%w", err)
	}
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		ctx, cancel := k.changeContext(ctx)
		defer cancel()
		o, err := zkq.Resolve(ctx, c, t)
		if err != nil {
			return k.describe(err)
		}
		r := resolution{Token: string(t), Applied: o.Applied}
		if !o.Applied {
			if k.out.json {
				if err := k.out.record(r, ""); err != nil {
					return k.describe(err)
				}
			}
			return k.describe(nothingError("%s was not applied, and never will be", t))
		}
		r.Entries, _ = strconv.Atoi(string(o.Note))
		return k.describe(k.out.record(r, "applied", strconv.Itoa(r.Entries)))
	})
}
