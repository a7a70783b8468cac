// SPDX-License-Identifier: Apache-2.0

// Package bootstrap turns etcd's flags about the members of a cluster into the configuration of a node, and keeps the
// result in the data directory. So, as in etcd, a member needs these flags only on its first start.
package bootstrap

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/coterie-kv/coterie"
)

// The values of --initial-cluster-state.
const (
	StateNew      = "new"
	StateExisting = "existing"
)

// Flags are etcd's flags about the members of a cluster.
type Flags struct {
	Name          string   // --name
	Token         string   // --initial-cluster-token
	Members       string   // --initial-cluster; if it is empty, the member is the only one
	State         string   // --initial-cluster-state; empty means StateNew
	AdvertiseURLs []string // --initial-advertise-peer-urls
}

// A Plan says how a node begins, and where it looks for the other members on later starts.
type Plan struct {
	Cluster   string            `json:"cluster"`
	Name      string            `json:"name"`      // coterie.Config.Name; that of a member that joins is its address
	Advertise string            `json:"advertise"` // the address that other members dial
	Founders  []coterie.Founder `json:"founders,omitempty"`
	Join      []string          `json:"join,omitempty"` // addresses of members; a node that joins has no founders
}

// New returns the plan of a node that begins. The founders of a new cluster have the names and the first peer URLs
// of --initial-cluster. A node that joins an existing cluster has its address as its name, because etcd's call
// MemberAdd has no name, and etcdapi adds a member under its address.
//
// Errors: a URL that etcd does not accept, or that is not of HTTP; a URL that is given twice; a list without the
// member itself; a new cluster with a list that has other URLs of this member than those that it advertises; an
// existing cluster without other members.
func New(f Flags) (Plan, error) {
	advertised, err := types.NewURLs(f.AdvertiseURLs)
	if err != nil {
		return Plan{}, fmt.Errorf("--initial-advertise-peer-urls: %w", err)
	}
	members, err := parseMembers(cmp.Or(f.Members, defaultMembers(f)))
	if err != nil {
		return Plan{}, err
	}
	own := slices.IndexFunc(members, func(m member) bool { return m.name == f.Name })
	if own < 0 {
		return Plan{}, fmt.Errorf("couldn't find local name %q in the initial cluster configuration: add %s=%s to --initial-cluster, or correct --name",
			f.Name, f.Name, f.AdvertiseURLs[0])
	}
	p := Plan{Cluster: f.Token, Name: f.Name, Advertise: members[own].addr()}
	switch cmp.Or(f.State, StateNew) {
	case StateNew:
		if listed := sorted(members[own].urls); !slices.Equal(listed, advertised.StringSlice()) {
			return Plan{}, fmt.Errorf("--initial-cluster has %s for member %s, but --initial-advertise-peer-urls has %s: they must be the same",
				strings.Join(listed, ","), f.Name, advertised)
		}
		for _, m := range members {
			p.Founders = append(p.Founders, coterie.Founder{Name: m.name, Addr: m.addr()})
		}
	case StateExisting:
		p.Name = p.Advertise
		for i, m := range members {
			if i != own {
				p.Join = append(p.Join, m.addr())
			}
		}
		if len(p.Join) == 0 {
			return Plan{}, errors.New("--initial-cluster-state=existing needs the other members: --initial-cluster has none")
		}
	default:
		return Plan{}, fmt.Errorf("--initial-cluster-state is %q, and must be %q or %q", f.State, StateNew, StateExisting)
	}
	return p, nil
}

// Config returns the configuration of the node, as far as it follows from the plan.
func (p Plan) Config(dataDir string) coterie.Config {
	return coterie.Config{
		Dir: NodeDir(dataDir), Cluster: p.Cluster, Name: p.Name, Advertise: p.Advertise,
		Founders: slices.Clone(p.Founders), Join: slices.Clone(p.Join),
	}
}

// NodeDir returns the directory of the node in a data directory. etcd has its files in a directory of that name, too.
func NodeDir(dataDir string) string { return filepath.Join(dataDir, "member") }

// defaultMembers returns the value that --initial-cluster has by default: the member itself.
func defaultMembers(f Flags) string {
	var entries []string
	for _, u := range f.AdvertiseURLs {
		entries = append(entries, f.Name+"="+u)
	}
	return strings.Join(entries, ",")
}

// Move changes the address that other members dial.
func (p *Plan) Move(addr string) {
	p.Advertise = addr
	for i := range p.Founders {
		if p.Founders[i].Name == p.Name {
			p.Founders[i].Addr = addr
		}
	}
}

// Hint adds the addresses of a value of --initial-cluster on a later start. The list adds no members to those of the
// directory; it only says where they may be now. A list that New would reject adds nothing.
func (p *Plan) Hint(list string) {
	members, err := parseMembers(list)
	if err != nil {
		return
	}
	for _, m := range members {
		if m.addr() == p.Advertise {
			continue
		}
		if len(p.Founders) == 0 && !slices.Contains(p.Join, m.addr()) {
			p.Join = append(p.Join, m.addr())
		}
		for i := range p.Founders {
			if f := &p.Founders[i]; f.Name == m.name && f.Name != p.Name {
				f.Addr = m.addr()
			}
		}
	}
}

// BeAlone forgets the other members.
func (p *Plan) BeAlone() {
	p.Founders, p.Join = []coterie.Founder{{Name: p.Name, Addr: p.Advertise}}, nil
}
