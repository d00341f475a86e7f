package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker. If it is empty, zkq prints the module's version.
var version = ""

func versionVerb() verb {
	return verb{
		name:     "version",
		usage:    "show the version",
		readOnly: true,
		run:      func(_ context.Context, k *call) error { return k.out.version() },
	}
}

// version prints the version.
func (o *output) version() error {
	v := version
	if info, ok := debug.ReadBuildInfo(); ok && v == "" {
		v = info.Main.Version
	}
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	return o.record(struct {
		Version  string `json:"version"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}{v, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH},
		fmt.Sprintf("zkq %s (%s, %s/%s)", v, runtime.Version(), runtime.GOOS, runtime.GOARCH))
}
