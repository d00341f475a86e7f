package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const variablePrefix = "ZKQ_"

// variableOf is the variable that stands in for a global flag.
func variableOf(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// variables are the names that zkq reads: for the settings, for credentials, and
// those that consume sets for CMD, which may run zkq in its turn.
func variables() []string {
	names := []string{
		"ZKQ_USER", "ZKQ_PASSWORD_FILE", "ZKQ_CA_FILE", "ZKQ_CERT_FILE", "ZKQ_KEY_FILE",
		"ZKQ_QUEUE", "ZKQ_NAME", "ZKQ_DELIVERIES", "ZKQ_FAILURES", "ZKQ_PRIORITY", "ZKQ_TOKEN",
	}
	for _, f := range globalFlags() {
		if name := f.Names()[0]; name != "help" && name != "version" {
			names = append(names, variableOf(name))
		}
	}
	return names
}

// serviceVariable matches what Kubernetes sets for a service whose name begins with
// zkq.
var serviceVariable = regexp.MustCompile(`_SERVICE_(HOST|PORT)|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?$`)

// unknownVariables warns of each variable that looks like one of zkq's and is none:
// a misspelt ZKQ_COORDINATOR would lead to the local store without a word.
func (e environment) unknownVariables() (warnings []string) {
	known := variables()
	for _, name := range slices.Sorted(maps.Keys(e)) {
		if !strings.HasPrefix(name, variablePrefix) || slices.Contains(known, name) || serviceVariable.MatchString(strings.TrimPrefix(name, "ZKQ")) {
			continue
		}
		warning := fmt.Sprintf("%s is set, and zkq has no such variable", name)
		if near := nearest(name, known); near != "" {
			warning += ": did you mean " + near + "?"
		}
		warnings = append(warnings, warning)
	}
	return warnings
}
