// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// A member is a member in --initial-cluster, with its peer URLs in the order of the flag.
type member struct {
	name  string
	urls  []string
	first *url.URL
}

// addr returns the address that other members dial.
func (m member) addr() string { return m.first.Host }

// parseMembers reads --initial-cluster: a list of name=URL. A name may have several URLs.
func parseMembers(list string) ([]member, error) {
	for entry := range strings.SplitSeq(list, ",") {
		if entry != "" && !strings.Contains(entry, "=") {
			return nil, fmt.Errorf("--initial-cluster: %q is not a member: give each as name=URL", entry)
		}
	}
	if _, err := types.NewURLsMap(list); err != nil {
		return nil, fmt.Errorf("--initial-cluster: %w", err)
	}
	var members []member
	seen := map[string]bool{}
	for entry := range strings.SplitSeq(list, ",") {
		if entry == "" {
			continue
		}
		name, text, _ := strings.Cut(entry, "=")
		u, err := url.Parse(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("--initial-cluster: %w", err)
		}
		if u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("--initial-cluster: %s: the scheme of a peer URL must be http or https", text)
		}
		if seen[u.Host] {
			return nil, fmt.Errorf("--initial-cluster: initial cluster %s has duplicate url %s", list, u)
		}
		seen[u.Host] = true
		i := slices.IndexFunc(members, func(m member) bool { return m.name == name })
		if i < 0 {
			members = append(members, member{name: name, first: u})
			i = len(members) - 1
		}
		members[i].urls = append(members[i].urls, u.String())
	}
	return members, nil
}

func sorted(urls []string) []string { return slices.Sorted(slices.Values(urls)) }
