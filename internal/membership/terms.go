// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie/internal/wire"
)

// A Founder is a node that founds a cluster.
type Founder struct{ Name, Addr string }

// Terms are the words that a cluster was founded with. When two nodes find that they are of different
// clusters, one sends its terms, and the other compares them with its own.
type Terms struct {
	Cluster  string    // Config.Cluster
	Founders []Founder // empty: the node does not know them
}

// Append encodes the terms in at most limit bytes. It leaves the founders out if they do not fit.
func (t Terms) Append(b []byte, limit int) []byte {
	start := len(b)
	b = wire.Text(b, 1, t.Cluster)
	end := len(b)
	for _, f := range t.Founders {
		b = wire.Element(b, 2, wire.Text(wire.Text(nil, 1, f.Name), 2, f.Addr))
	}
	if len(b)-start > limit {
		b = b[:end]
	}
	return b
}

// ReadTerms decodes terms.
func ReadTerms(b []byte) (t Terms, err error) {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			t.Cluster = r.Text()
		case 2:
			var f Founder
			founder := wire.NewReader(r.Bytes())
			for founder.Next() {
				switch founder.Field() {
				case 1:
					f.Name = founder.Text()
				case 2:
					f.Addr = founder.Text()
				}
			}
			if founder.Err() != nil {
				return Terms{}, founder.Err()
			}
			t.Founders = append(t.Founders, f)
		}
	}
	return t, r.Err()
}

// Difference says how the configuration of this node, with the terms t, differs from that of a node of
// another cluster. It returns "" if the terms do not tell. founded says that the other cluster exists;
// isNew says that this node has no data yet.
func (t Terms) Difference(other Terms, founded, isNew bool) string {
	if other.Cluster != t.Cluster {
		return fmt.Sprintf("the node is of cluster %q, this one of %q (Config.Cluster)", other.Cluster, t.Cluster)
	}
	var differences string
	if len(other.Founders) > 0 && len(t.Founders) > 0 {
		differences = strings.Join(differ(t.Founders, other.Founders), ", ")
	}
	switch {
	case founded && isNew:
		text := fmt.Sprintf("cluster %q exists already, and Config.Founders is for founding one: "+
			"a new node, with an empty directory, needs Config.Join", t.Cluster)
		if differences != "" {
			text += "; Config.Founders differs from the founders: " + differences
		}
		return text
	case differences != "":
		return "Config.Founders differs: " + differences
	}
	return ""
}

// differ lists the entries in which two lists of founders differ.
func differ(here, there []Founder) (all []string) {
	find := func(in []Founder, name string) (string, bool) {
		i := slices.IndexFunc(in, func(f Founder) bool { return f.Name == name })
		if i < 0 {
			return "", false
		}
		return in[i].Addr, true
	}
	for _, f := range here {
		switch addr, ok := find(there, f.Name); {
		case !ok:
			all = append(all, fmt.Sprintf("%s %s is here alone", f.Name, f.Addr))
		case addr != f.Addr:
			all = append(all, fmt.Sprintf("%s is %s here and %s there", f.Name, f.Addr, addr))
		}
	}
	for _, f := range there {
		if _, ok := find(here, f.Name); !ok {
			all = append(all, fmt.Sprintf("%s %s is there alone", f.Name, f.Addr))
		}
	}
	return all
}
