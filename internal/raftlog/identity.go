// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/wire"
)

// An Identity says which member a directory belongs to.
type Identity struct {
	Cluster uint64 // 0 if it belongs to no cluster yet
	Member  uint64
	// Incarnation is drawn when the directory is made. A node that returns under a known name with
	// another incarnation has forgotten its promises.
	Incarnation uint64
	// Since is an index at which the cluster had the incarnation on record. It is 0 while the node does
	// not know that the cluster has it.
	Since uint64
	// Floor is the term at that time, if the directory was new then. The promises that its member made up
	// to that term, in another incarnation, are not known.
	Floor uint64
	// Gathered says that a founder has met all the others, and that neither they nor it had anything
	// beyond the founding entries.
	Gathered bool
	// Runs are the runs of the directory. It is empty until a node of a version that numbers runs opens
	// it.
	Runs run.Line
	// Disputed says that another member knew of data that the directory has lost. Only the leader can
	// clear it.
	Disputed bool
}

// withoutLog returns an error for a directory that has neither entries nor a snapshot, if its member must
// have had some because it took part in its cluster before the cluster had it on record. The error names the file.
func (id *Identity) withoutLog(file string) error {
	if id.Since == 0 || id.Floor > 0 {
		return nil
	}
	return &CorruptError{File: file, Err: fmt.Errorf("it has no entry, and there is no snapshot, but the member had entry %d", id.Since)}
}

var errIdentityMissing = errors.New("it is missing, and the log is not")

// decodeIdentity decodes the record of an identity. Errors about its contents name the file.
func decodeIdentity(b []byte, file string) (id Identity, err error) {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			id.Cluster = r.Uint()
		case 2:
			id.Member = r.Uint()
		case 3:
			id.Incarnation = r.Uint()
		case 4:
			id.Since = r.Uint()
		case 5:
			id.Floor = r.Uint()
		case 6:
			id.Gathered = r.Bool()
		case 7:
			if id.Runs, err = run.ReadLine(r.Bytes()); err != nil {
				return Identity{}, &CorruptError{File: file, Err: err}
			}
		case 8:
			id.Disputed = r.Bool()
		}
	}
	if r.Err() != nil {
		return Identity{}, &CorruptError{File: file, Err: r.Err()}
	}
	return id, nil
}

func encodeIdentity(id *Identity) (b []byte) {
	b = wire.Uint(b, 1, id.Cluster)
	b = wire.Uint(b, 2, id.Member)
	b = wire.Uint(b, 3, id.Incarnation)
	b = wire.Uint(b, 4, id.Since)
	b = wire.Uint(b, 5, id.Floor)
	b = wire.Bool(b, 6, id.Gathered)
	if id.Runs != (run.Line{}) {
		b = wire.Message(b, 7, id.Runs.Append)
	}
	return wire.Bool(b, 8, id.Disputed)
}
