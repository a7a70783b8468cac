// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"flag"
	"fmt"
	"slices"
	"strings"
)

// A ConflictError says that both an environment variable and a flag have a value for one setting. Like etcd, coteried
// refuses that even if the values are the same.
type ConflictError struct{ Variable, Flag string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("conflicting environment variable %s is shadowed by the command-line flag --%s: unset the variable or remove the flag",
		e.Variable, e.Flag)
}

const envPrefix = "ETCD_"

// variable returns the name of the environment variable of a flag.
func variable(name string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// setFromEnvironment sets the flags that have an environment variable. It returns a warning for each variable with etcd's
// prefix that no flag has.
func setFromEnvironment(f *flag.FlagSet, environ []string) (warnings []string, err error) {
	onCommandLine := map[string]bool{}
	f.Visit(func(one *flag.Flag) { onCommandLine[one.Name] = true })
	flagOf := map[string]string{}
	f.VisitAll(func(one *flag.Flag) { flagOf[variable(one.Name)] = one.Name })
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		key, value, _ := strings.Cut(entry, "=")
		name, known := flagOf[key]
		switch {
		case !strings.HasPrefix(key, envPrefix):
		case !known || name == "version":
			warnings = append(warnings, "unrecognized environment variable "+key)
		case onCommandLine[name]:
			return nil, &ConflictError{key, name}
		case value == "":
		default:
			if err := f.Set(name, value); err != nil {
				return nil, fmt.Errorf("invalid value %q for %s: %w", value, key, err)
			}
		}
	}
	return warnings, nil
}

// lookup returns the value of a variable in a list of them.
func lookup(environ []string, key string) string {
	for _, entry := range environ {
		if value, ok := strings.CutPrefix(entry, key+"="); ok {
			return value
		}
	}
	return ""
}
