// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/wire"
)

// terms are the words that a cluster was founded with. A node tells them to a node of another cluster,
// which compares them with its own and reports the difference.
type terms struct {
	cluster  string    // Config.Cluster
	founders []Founder // empty: the node does not know them
}

// terms returns those of this node's cluster.
func (n *Node) terms() terms {
	t := terms{cluster: n.cfg.Cluster}
	// On later starts Founders may say only where the founders are now; a node that joined has none, and
	// the ID of a cluster that was restored depends on the backup, too.
	if n.cfg.clusterID() == n.identity.Load().Cluster {
		t.founders = n.cfg.Founders
	}
	return t
}

// append encodes the terms. A list of founders that is too long is left out.
func (t terms) append(b []byte) []byte {
	start := len(b)
	b = wire.Text(b, 1, t.cluster)
	end := len(b)
	for _, p := range t.founders {
		b = wire.Element(b, 2, wire.Text(wire.Text(nil, 1, p.Name), 2, p.Addr))
	}
	if len(b)-start > rpc.MaxTerms {
		b = b[:end]
	}
	return b
}

func readTerms(b []byte) (t terms, err error) {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			t.cluster = r.Text()
		case 2:
			var p Founder
			peer := wire.NewReader(r.Bytes())
			for peer.Next() {
				switch peer.Field() {
				case 1:
					p.Name = peer.Text()
				case 2:
					p.Addr = peer.Text()
				}
			}
			if peer.Err() != nil {
				return terms{}, peer.Err()
			}
			t.founders = append(t.founders, p)
		}
	}
	return t, r.Err()
}

// compare says how this node's configuration differs from the terms of the cluster that another node is
// of. It returns nothing if it cannot tell.
func (n *Node) compare(other rpc.Identity, theirs terms) string {
	own := n.terms()
	if theirs.cluster != own.cluster {
		return fmt.Sprintf("the node is of cluster %q, this one of %q (Config.Cluster)", theirs.cluster, own.cluster)
	}
	var differences string
	if len(theirs.founders) > 0 && len(own.founders) > 0 {
		differences = strings.Join(differ(own.founders, theirs.founders), ", ")
	}
	switch founded := other.Since > 0; {
	case founded && n.isNew():
		text := fmt.Sprintf("cluster %q exists already, and Config.Founders is for founding one: a new node, with an empty directory, needs Config.Join", own.cluster)
		if differences != "" {
			text += "; Config.Founders differs from the founders: " + differences
		}
		return text
	case differences != "":
		return "Config.Founders differs: " + differences
	}
	return ""
}

// estranged says how a founder, as Config.Founders has it, can be of another cluster, if it did not tell its
// terms: a caller does not. It returns nothing for other nodes.
func (n *Node) estranged(m *rpc.MismatchError) string {
	for _, p := range n.cfg.Founders {
		switch {
		case uint64(n.cfg.memberID(p.Name)) != m.Other.Member:
		case m.Other.Cluster != m.Self.Cluster:
			return p.Name + " is of another cluster: it was given other Config.Founders, or another backup"
		default:
			return p.Name + " is of another cluster, that was founded with the same Config.Founders at another time"
		}
	}
	return ""
}

// differ lists the entries in which two lists of founders differ.
func differ(here, there []Founder) (all []string) {
	find := func(in []Founder, name string) (string, bool) {
		i := slices.IndexFunc(in, func(p Founder) bool { return p.Name == name })
		if i < 0 {
			return "", false
		}
		return in[i].Addr, true
	}
	for _, p := range here {
		switch addr, ok := find(there, p.Name); {
		case !ok:
			all = append(all, fmt.Sprintf("%s %s is here alone", p.Name, p.Addr))
		case addr != p.Addr:
			all = append(all, fmt.Sprintf("%s is %s here and %s there", p.Name, p.Addr, addr))
		}
	}
	for _, p := range there {
		if _, ok := find(here, p.Name); !ok {
			all = append(all, fmt.Sprintf("%s %s is there alone", p.Name, p.Addr))
		}
	}
	return all
}
