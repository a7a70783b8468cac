// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"fmt"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/metadata"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A Kind is the kind of a Change.
type Kind uint64

// The kinds. Their numbers are those of the wire.
const (
	Enroll     Kind = iota + 1 // put the node that asks on record, and make it a member if it is none
	Add                        // make a node a member before it is started
	Remove                     // remove a member
	Promote                    // give a member a vote when it has caught up
	Transfer                   // make a member the leader
	Update                     // put another address of a member on record
	Describe                   // change the metadata of a member
	PromoteNow                 // give a member a vote if it has caught up, or change nothing
)

// A Change is a request to the leader to change the members.
type Change struct {
	Kind       Kind
	ID         uint64
	Name, Addr string
	Voter      bool // Enroll, Add: the member gets a vote when it has caught up
	Empty      bool // Add: the node must start with an empty directory
	// Metadata replaces the metadata of a member that is enrolled, unless it is nil. Of a Describe it has the
	// changes.
	Metadata map[string]string

	// The remaining fields are for Enroll: they say what the directory of the node has.
	Cluster     string // Config.Cluster
	Incarnation uint64
	Since       uint64
	Runs        run.Line
	InMemory    bool // the node keeps nothing, so it may have lost its data
	// Start is a random number that the node drew when it was opened: the metadata that is on record with
	// it is that of this opening. Blank reports that the state of the node lacks the metadata of the
	// members, since nodes of an earlier version took part in it.
	Start uint64
	Blank bool
}

// Objection returns why a node may not be enrolled in a cluster or added to it, or nil. m is the member
// with the node's ID, if known is true. silent reports whether that member has not been heard for an
// election timeout.
func (c *Change) Objection(cluster string, m state.Member, known bool, silent func() bool) error {
	added := c.Kind == Add
	switch {
	case !added && c.Cluster != cluster:
		return fmt.Errorf("%w: this is %q, not %q", fault.ErrClusterMismatch, cluster, c.Cluster)
	case !known && c.Since > 0:
		return fmt.Errorf("%w: %s was removed", fault.ErrMemberNotFound, c.Name)
	case !known:
		return nil
	case added && (m.Incarnation != 0 || m.Addr != c.Addr || m.Wanted != c.Voter):
		return fmt.Errorf("%w: %s", fault.ErrMemberExists, c.Name)
	case !added && m.NeedsEmpty() && c.Since > 0:
		return fmt.Errorf("%w: %s was removed, and added as a new node; with an empty directory it can join", fault.ErrMemberNotFound, c.Name)
	case added || m.Incarnation == 0:
		return nil
	case m.Incarnation == c.Incarnation && c.Runs.Has(m.Run):
		return nil
	case m.Incarnation == c.Incarnation:
		return CopiedError(c.Name)
	case c.InMemory && c.Since == 0 && silent():
		return nil // no other node answers under that name; Trust says why this is safe
	}
	return fmt.Errorf("%w: %s is on record with another directory; if that is lost, remove the member, and it can join again",
		fault.ErrDirMismatch, c.Name)
}

// CopiedError returns the error of a node that runs on a copied directory, if the directory has run elsewhere since.
func CopiedError(name string) error {
	return fmt.Errorf("%w: the directory of %s was put back from an older copy, or a copy of it has been in use since; "+
		"remove the member, and with an empty directory it can join again", fault.ErrDirMismatch, name)
}

// TwinError returns the error of a node that another node runs beside, with a copy of its directory.
func TwinError(name string) error {
	return fmt.Errorf("%w: %s runs already; stop one of the two, and give a second node a name and an empty directory",
		fault.ErrDuplicateNode, name)
}

// Append encodes the change.
func (c *Change) Append(b []byte) []byte {
	b = wire.Uint(b, 1, uint64(c.Kind))
	b = wire.Uint(b, 2, c.ID)
	b = wire.Text(b, 3, c.Name)
	b = wire.Text(b, 4, c.Addr)
	b = wire.Bool(b, 5, c.Voter)
	b = wire.Text(b, 6, c.Cluster)
	b = wire.Uint(b, 7, c.Incarnation)
	b = wire.Uint(b, 8, c.Since)
	b = wire.Bool(b, 9, c.InMemory)
	if c.Runs != (run.Line{}) {
		b = wire.Message(b, 10, c.Runs.Append)
	}
	b = wire.Uint(b, 11, c.Start)
	if c.Metadata != nil {
		b = wire.Message(b, 12, func(b []byte) []byte { return metadata.Append(b, c.Metadata, true) })
	}
	return wire.Bool(wire.Bool(b, 13, c.Blank), 14, c.Empty)
}

// ReadChange decodes a change.
func ReadChange(b []byte) (*Change, error) {
	c := &Change{}
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			c.Kind = Kind(r.Uint())
		case 2:
			c.ID = r.Uint()
		case 3:
			c.Name = r.Text()
		case 4:
			c.Addr = r.Text()
		case 5:
			c.Voter = r.Bool()
		case 6:
			c.Cluster = r.Text()
		case 7:
			c.Incarnation = r.Uint()
		case 8:
			c.Since = r.Uint()
		case 9:
			c.InMemory = r.Bool()
		case 10:
			var err error
			if c.Runs, err = run.ReadLine(r.Bytes()); err != nil {
				return nil, err
			}
		case 11:
			c.Start = r.Uint()
		case 12:
			var err error
			if c.Metadata, err = metadata.Read(r.Bytes()); err != nil {
				return nil, err
			}
		case 13:
			c.Blank = r.Bool()
		case 14:
			c.Empty = r.Bool()
		}
	}
	return c, r.Err()
}

// An Admission is the leader's reply to a Change: the cluster has made it at an index of the log, in a
// term.
type Admission struct{ Cluster, Index, Term uint64 }

// Append encodes the admission.
func (a Admission) Append(b []byte) []byte {
	b = wire.Uint(b, 1, a.Cluster)
	b = wire.Uint(b, 2, a.Index)
	return wire.Uint(b, 3, a.Term)
}

// ReadAdmission decodes an admission.
func ReadAdmission(b []byte) (a Admission, err error) {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			a.Cluster = r.Uint()
		case 2:
			a.Index = r.Uint()
		case 3:
			a.Term = r.Uint()
		}
	}
	return a, r.Err()
}
