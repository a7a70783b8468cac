// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/coterie-kv/coterie"
)

// A report is an inspection that can be printed as JSON or as text.
type report interface{ write(out io.Writer) error }

// An id is printed in hex, as everywhere else. Many JSON readers do not support 64-bit numbers.
type id uint64

// MarshalText implements encoding.TextMarshaler.
func (i id) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

func (i id) String() string { return fmt.Sprintf("%016x", uint64(i)) }

// A directory is printed in JSON like [coterie.Inspection], so that programs can decode it.
type directory struct{ coterie.Inspection }

func (d *directory) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line(w, "directory", d.Dir)
	if d.Unfinished {
		line(w, "unfinished", "a backup was being restored; restore it again, or remove the directory")
	}
	line(w, "cluster", id(d.ClusterID), "epoch", id(d.Epoch))
	line(w, "member", d.Member, "incarnation", id(d.Incarnation))
	line(w, "term", d.Term)
	if d.VoteTerm > 0 {
		line(w, "vote", fmt.Sprintf("for %s in term %d", d.VotedFor, d.VoteTerm))
	}
	if d.LastIndex > 0 {
		line(w, "log", fmt.Sprintf("%d to %d, the last of term %d", d.FirstIndex, d.LastIndex, d.LastTerm))
	} else {
		line(w, "log", "empty")
	}
	line(w, "durable", d.Durable)
	line(w, "applied", d.Applied)
	contents(w, d.Revision, d.CompactRevision, d.Keys, d.Leases)
	for _, m := range d.Members {
		role := "voter"
		if !m.Voter {
			role = "no voter"
		}
		line(w, "has", m.ID, m.Name, m.Addr, role)
	}
	for _, s := range d.Snapshots {
		line(w, "snapshot", s.File, fmt.Sprintf("index %d, term %d, revision %d, %d bytes", s.Index, s.Term, s.Revision, s.Size))
	}
	if d.Torn > 0 {
		line(w, "torn", fmt.Sprintf("%d bytes at the end of the log, as a crash leaves them: no damage", d.Torn))
	}
	return verdict(w, d.Damage, d.OtherFormats)
}

type backup struct {
	Backup          string           `json:"backup"`
	Name            string           `json:"clusterName"`
	Cluster         id               `json:"cluster"`
	Member          id               `json:"member"`
	Taken           time.Time        `json:"taken"`
	Revision        int64            `json:"revision"`
	CompactRevision int64            `json:"compactRevision"`
	Keys            int              `json:"keys"`
	Leases          int              `json:"leases"`
	Bytes           int64            `json:"bytes"`
	Damage          []coterie.Damage `json:"damage"`

	OtherFormats []coterie.FormatError `json:"otherFormats"`
}

func ofBackup(file string, in *coterie.BackupInspection, err error) report {
	b := &backup{
		Backup: file, Name: in.Cluster, Cluster: id(in.ClusterID), Member: id(in.Member), Taken: in.Taken.UTC(), Revision: in.Revision,
		CompactRevision: in.CompactRevision, Keys: in.Keys, Leases: in.Leases, Bytes: in.Bytes, Damage: []coterie.Damage{},
		OtherFormats: []coterie.FormatError{},
	}
	var other *coterie.FormatError
	switch {
	case errors.As(err, &other):
		b.OtherFormats = append(b.OtherFormats, *other)
	case err != nil:
		b.Damage = append(b.Damage, coterie.Damage{File: file, Reason: err.Error()})
	}
	return b
}

func (b *backup) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line(w, "backup", b.Backup)
	if len(b.Damage)+len(b.OtherFormats) == 0 { // else these are not known
		line(w, "cluster", b.Cluster, b.Name)
		line(w, "member", b.Member)
		line(w, "taken", b.Taken.Format(time.RFC3339))
		contents(w, b.Revision, b.CompactRevision, b.Keys, b.Leases)
		line(w, "bytes", b.Bytes)
	}
	return verdict(w, b.Damage, b.OtherFormats)
}

// line writes a name and its values. Flush returns the errors.
func line(w io.Writer, name string, values ...any) {
	fmt.Fprint(w, name)
	for i, v := range values {
		separator := " "
		if i == 0 {
			separator = "\t"
		}
		fmt.Fprint(w, separator, v)
	}
	fmt.Fprintln(w)
}

func contents(w io.Writer, revision, compacted int64, keys, leases int) {
	history := "never compacted"
	if compacted >= 0 {
		history = fmt.Sprintf("kept from %d on", compacted)
	}
	line(w, "revision", fmt.Sprintf("%d, %s", revision, history))
	line(w, "keys", keys)
	line(w, "leases", leases)
}

func verdict(w *tabwriter.Writer, all []coterie.Damage, others []coterie.FormatError) error {
	for _, d := range all {
		line(w, "DAMAGED", d.File+":", d.Reason)
	}
	for i := range others {
		line(w, "NOT READ", others[i].Error())
	}
	if len(all)+len(others) == 0 {
		line(w, "verified", "every byte is valid")
	}
	return w.Flush()
}
