// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// sections are the sections of etcd's configuration file, with the names of their flags.
var sections = map[string]map[string]string{
	"client-transport-security": {
		"cert-file": "cert-file", "key-file": "key-file", "client-cert-file": "client-cert-file", "client-key-file": "client-key-file",
		"client-cert-auth": "client-cert-auth", "trusted-ca-file": "trusted-ca-file", "auto-tls": "auto-tls",
		"allowed-hostname": "client-cert-allowed-hostname",
	},
	"peer-transport-security": {
		"cert-file": "peer-cert-file", "key-file": "peer-key-file", "client-cert-file": "peer-client-cert-file",
		"client-key-file": "peer-client-key-file", "client-cert-auth": "peer-client-cert-auth", "trusted-ca-file": "peer-trusted-ca-file",
		"auto-tls": "peer-auto-tls", "allowed-cn": "peer-cert-allowed-cn", "allowed-hostname": "peer-cert-allowed-hostname",
		"skip-client-san-verification": "peer-skip-client-san-verification",
	},
	"socket-options":   {"reuse-port": "socket-reuse-port", "reuse-address": "socket-reuse-address"},
	"discovery-config": {"discovery-endpoints": "discovery-endpoints", "discovery-token": "discovery-token"},
}

// setFromFile sets the flags that a YAML file of etcd's form has. It returns a warning for each key that no flag has, which
// etcd ignores.
func setFromFile(f *flag.FlagSet, s *Settings, name string) (warnings []string, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var file map[string]any
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	set := func(key, flagName string, value any) error {
		if f.Lookup(flagName) == nil || flagName == "config-file" || flagName == "version" {
			warnings = append(warnings, fmt.Sprintf("%s: the key %s is unknown and ignored", name, key))
			return nil
		}
		text, err := scalar(f.Lookup(flagName), value)
		if err == nil && text != "" {
			err = f.Set(flagName, text)
		}
		if err != nil {
			return fmt.Errorf("%s: invalid value %v for %s: %w", name, value, key, err)
		}
		return nil
	}
	for _, key := range sortedKeys(file) {
		section, isSection := sections[key]
		if !isSection {
			if err := set(key, key, file[key]); err != nil {
				return nil, err
			}
			continue
		}
		entries, ok := file[key].(map[string]any)
		if !ok && file[key] != nil {
			return nil, fmt.Errorf("%s: invalid %s", name, key)
		}
		for _, entry := range sortedKeys(entries) {
			if key == "client-transport-security" && entry == "allowed-cn" { // the only key without a flag
				names, err := scalar(nil, entries[entry])
				if err == nil {
					err = s.Client.AllowedCNs.Set(names)
				}
				if err != nil {
					return nil, fmt.Errorf("%s: invalid value for %s.%s: %w", name, key, entry, err)
				}
				continue
			}
			if err := set(key+"."+entry, section[entry], entries[entry]); err != nil {
				return nil, err
			}
		}
	}
	return warnings, nil
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// isList reports whether a flag takes several words, so that its value in a file may be a list.
func isList(f *flag.Flag) bool {
	switch f.Value.(type) {
	case *stringList, *urlList:
		return true
	}
	return false
}

// scalar returns a value of a file as the text of a flag. A number without a unit is a duration in nanoseconds, as in
// etcd. Only a flag that takes several words may have a list.
func scalar(f *flag.Flag, value any) (string, error) {
	number := func(n int64) string {
		if f != nil {
			if g, ok := f.Value.(flag.Getter); ok {
				if _, isDuration := g.Get().(time.Duration); isDuration {
					return time.Duration(n).String()
				}
			}
		}
		return strconv.FormatInt(n, 10)
	}
	switch v := value.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return number(int64(v)), nil
	case int64:
		return number(v), nil
	case uint64:
		return strconv.FormatUint(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case []any:
		if f != nil && !isList(f) {
			break
		}
		words := make([]string, len(v))
		for i, one := range v {
			word, err := scalar(nil, one)
			if err != nil {
				return "", err
			}
			words[i] = word
		}
		return strings.Join(words, ","), nil
	}
	return "", fmt.Errorf("a %T is not expected here", value)
}
