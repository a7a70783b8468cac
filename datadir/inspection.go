// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"fmt"
	"strconv"

	"github.com/coterie-kv/coterie"
)

// An Inspection is the result of [Inspect]. The caller owns it.
type Inspection struct {
	Dir string `json:"directory"` // absolute
	// Storage is the storage of the directory: "segments", or "bolt" for that of package boltlog.
	Storage   string            `json:"storage"`
	ClusterID coterie.ClusterID `json:"cluster"`
	Member    coterie.MemberID  `json:"member"` // 0 if the directory belongs to no member yet
	// Incarnation is drawn at random when the directory is made. A directory of the same member with another
	// incarnation does not have the promises that this one made.
	Incarnation ID `json:"incarnation"`
	// Epoch is drawn at random when the cluster begins, and again by Recover. Nodes of two epochs refuse each
	// other. It is 0 if the node had not applied an entry with an epoch yet.
	Epoch ID `json:"epoch"`
	// MayLackAcknowledged reports whether the directory may lack entries that its member has acknowledged.
	// This is so if the member may have had another directory before, and this one has not received its entries
	// again yet, or if another member has reported that this one lost data.
	MayLackAcknowledged bool `json:"mayLackAcknowledged"`
	// RestoreUnfinished reports whether a restore of a backup was interrupted here. coterie.Open then refuses
	// the directory with ErrRestoreUnfinished.
	RestoreUnfinished bool             `json:"restoreUnfinished"`
	Term              uint64           `json:"term"`     // the newest term that the node has seen
	VoteTerm          uint64           `json:"voteTerm"` // the term of the node's last vote
	VotedFor          coterie.MemberID `json:"votedFor"` // the candidate of that vote
	// FirstIndex and LastIndex are the bounds of the log. They are 0 if the log has no entries, or if a
	// snapshot has overtaken them. LastTerm is the term of the last entry, or else of the newest snapshot.
	FirstIndex uint64 `json:"firstIndex"`
	LastIndex  uint64 `json:"lastIndex"`
	LastTerm   uint64 `json:"lastTerm"`
	// DurableIndex is the index of the last entry that the directory has, in its log or in a snapshot.
	DurableIndex uint64 `json:"durableIndex"`
	// AppliedIndex is the index up to which the node had applied the log, as far as the node has recorded
	// it: it does so within 50 ms. coterie.Open continues from there, with Revision.
	AppliedIndex    uint64     `json:"appliedIndex"`
	Revision        int64      `json:"revision"`
	CompactRevision int64      `json:"compactRevision"` // the oldest revision that can be read; -1 before the first compaction
	Keys            int        `json:"keys"`
	Leases          int        `json:"leases"`
	Members         []Member   `json:"members"` // of the newest configuration
	Snapshots       []Snapshot `json:"snapshots"`
	// TornTailBytes is the number of bytes at the end of the log that a crash has torn. That is no damage:
	// the node never acknowledged them, and coterie.Open cuts them off.
	TornTailBytes int64         `json:"tornTailBytes"`
	DamagedFiles  []DamagedFile `json:"damagedFiles"`
	// OtherFormats lists the files that another version of this package wrote in a format that this version
	// does not read. That is no damage, but their contents are missing here, and DamagedFiles lists only the
	// damage that is certain without them.
	OtherFormats []coterie.FormatError `json:"otherFormats"`
}

// A Member is a member of the cluster, as a directory has it.
type Member struct {
	ID    coterie.MemberID `json:"id"`
	Addr  string           `json:"addr"`
	Voter bool             `json:"voter"`
	// Name and Incarnation are the cluster's record of the member. They are empty and 0 if the node had not
	// applied that record.
	Name        string `json:"name"`
	Incarnation ID     `json:"incarnation"`
	// Metadata is the member's, as the node had applied it.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// A Snapshot is a snapshot in a directory. Lists have the newest first.
type Snapshot struct {
	File     string `json:"file"`
	Index    uint64 `json:"index"` // of the last entry in it
	Term     uint64 `json:"term"`
	Size     int64  `json:"size"`     // of the state in it, in bytes
	Revision int64  `json:"revision"` // 0 if the snapshot cannot be read
}

// A DamagedFile says which file of a directory is damaged, and how.
type DamagedFile struct {
	File   string `json:"file"`
	Reason string `json:"reason"`
}

// An ID is a random number that tells two directories or two epochs apart. As text, also in JSON, it is 16
// hex digits. 0 is none.
type ID uint64

func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText returns the ID as String does.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads an ID in hex. Leading zeros may be missing.
func (id *ID) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	*id = ID(n)
	return err
}
