package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// variablePrefix begins the names of all variables that zkq reads or sets.
const variablePrefix = "ZKQ_"

// variableOf returns the variable of a global flag.
func variableOf(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// knownVariables lists the known variables: for settings, for credentials, and those that
// consume sets for CMD, which may itself run zkq.
func knownVariables() []string {
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

// serviceVariable matches the variables that Kubernetes sets for a service whose name
// begins with zkq.
var serviceVariable = regexp.MustCompile(`_SERVICE_(HOST|PORT)|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?$`)

// unknownVariables returns a warning for each variable with zkq's prefix that zkq does not
// know. With a misspelt ZKQ_COORDINATOR, zkq would silently use the local store.
func (e environment) unknownVariables() (warnings []string) {
	known := knownVariables()
	for _, name := range slices.Sorted(maps.Keys(e)) {
		if !strings.HasPrefix(name, variablePrefix) || slices.Contains(known, name) || serviceVariable.MatchString(strings.TrimPrefix(name, "ZKQ")) {
			continue
		}
		warning := fmt.Sprintf("%s is set, and zkq has no such variable", name)
		if near := nearestWord(name, known); near != "" {
			warning += ": did you mean " + near + "?"
		}
		warnings = append(warnings, warning)
	}
	return warnings
}
