// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

// A report is an inspection that can be printed as JSON or as text.
type report interface{ write(out io.Writer) error }

// A directory is printed in JSON like [datadir.Inspection], so that programs can decode it.
type directory struct{ datadir.Inspection }

func (d *directory) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line(w, "directory", d.Dir)
	line(w, "storage", d.Storage)
	if d.RestoreUnfinished {
		line(w, "unfinished", "a backup was being restored; restore it again, or remove the directory")
	}
	line(w, "cluster", d.ClusterID, "epoch", d.Epoch)
	line(w, "member", d.Member, "incarnation", d.Incarnation)
	line(w, "term", d.Term)
	if d.VoteTerm > 0 {
		line(w, "vote", fmt.Sprintf("for %s in term %d", d.VotedFor, d.VoteTerm))
	}
	if d.LastIndex > 0 {
		line(w, "log", fmt.Sprintf("%d to %d, the last of term %d", d.FirstIndex, d.LastIndex, d.LastTerm))
	} else {
		line(w, "log", "empty")
	}
	line(w, "durable", d.DurableIndex)
	line(w, "applied", d.AppliedIndex)
	contents(w, d.Revision, d.CompactRevision, d.Keys, d.Leases)
	for _, m := range d.Members {
		role := "voter"
		if !m.Voter {
			role = "no voter"
		}
		line(w, "has", m.ID, m.Name, m.Addr, role)
		for _, k := range slices.Sorted(maps.Keys(m.Metadata)) {
			line(w, "metadata", fmt.Sprintf("%q=%q", k, m.Metadata[k]))
		}
	}
	for _, s := range d.Snapshots {
		line(w, "snapshot", s.File, fmt.Sprintf("index %d, term %d, revision %d, %d bytes", s.Index, s.Term, s.Revision, s.Size))
	}
	if d.TornTailBytes > 0 {
		line(w, "torn", fmt.Sprintf("%d bytes at the end of the log, as a crash leaves them: no damage", d.TornTailBytes))
	}
	return verdict(w, d.DamagedFiles, d.OtherFormats)
}

// A backup is printed in JSON as [datadir.BackupInspection] is, with the file and the damage.
type backup struct {
	File string `json:"backup"`
	datadir.BackupInspection
	DamagedFiles []datadir.DamagedFile `json:"damagedFiles"`
	OtherFormats []coterie.FormatError `json:"otherFormats"`
}

func ofBackup(file string, found datadir.BackupInspection, err error) report {
	found.Taken = found.Taken.UTC()
	b := &backup{file, found, []datadir.DamagedFile{}, []coterie.FormatError{}}
	var other *coterie.FormatError
	switch {
	case errors.As(err, &other):
		b.OtherFormats = append(b.OtherFormats, *other)
	case err != nil:
		b.DamagedFiles = append(b.DamagedFiles, datadir.DamagedFile{File: file, Reason: err.Error()})
	}
	return b
}

func (b *backup) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line(w, "backup", b.File)
	if len(b.DamagedFiles)+len(b.OtherFormats) == 0 { // otherwise these are not known
		line(w, "cluster", b.ClusterID, b.Cluster)
		line(w, "member", b.Member)
		line(w, "taken", b.Taken.Format(time.RFC3339))
		contents(w, b.Revision, b.CompactRevision, b.Keys, b.Leases)
		line(w, "bytes", b.Bytes)
	}
	return verdict(w, b.DamagedFiles, b.OtherFormats)
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

func verdict(w *tabwriter.Writer, all []datadir.DamagedFile, others []coterie.FormatError) error {
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
