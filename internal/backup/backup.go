// SPDX-License-Identifier: Apache-2.0

// Package backup defines the format of a backup: a head that describes it, and the stream of a snapshot
// without a table of proposers.
package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/coterie-kv/coterie/internal/breakable"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

var format = wire.Format{What: "backup", Magic: "COTBAK", Version: 1}

// A Head describes a backup.
type Head struct {
	Cluster   string // its name
	ClusterID uint64
	Member    uint64 // the member that took it
	Revision  int64
	Taken     time.Time
}

func (h *Head) append(b []byte) []byte {
	b = wire.Text(b, 1, h.Cluster)
	b = wire.Uint(b, 2, h.ClusterID)
	b = wire.Uint(b, 3, h.Member)
	b = wire.Int(b, 4, h.Revision)
	if !h.Taken.IsZero() {
		b = wire.Int(b, 5, h.Taken.UnixNano())
	}
	return b
}

func (h *Head) decode(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			h.Cluster = r.Text()
		case 2:
			h.ClusterID = r.Uint()
		case 3:
			h.Member = r.Uint()
		case 4:
			h.Revision = r.Int()
		case 5:
			h.Taken = time.Unix(0, r.Int())
		}
	}
	return r.Err()
}

// Write writes a backup. The revision comes from the snapshot.
func Write(w io.Writer, h Head, sn *state.Snapshot) error {
	h.Revision = sn.Revision()
	if _, err := w.Write(command.AppendHead(nil, format, h.append)); err != nil {
		return err
	}
	_, err := sn.WriteTo(w)
	return err
}

// A Backup is the result of Read.
type Backup struct {
	Head
	State *state.State
	Bytes int64
	Sum   [sha256.Size]byte // SHA-256 of all bytes
}

// Read reads a backup to its end. It returns a Backup only if every byte is valid.
//
// Errors: those of state.Read.
func Read(r io.Reader) (*Backup, error) {
	b, sum := &Backup{}, sha256.New()
	counted := &counter{w: sum}
	r = io.TeeReader(r, counted)
	head, err := command.ReadHead(r, format)
	if err != nil {
		return nil, err
	}
	if err := b.decode(head); err != nil {
		return nil, err
	}
	if b.State, err = state.Read(r); err != nil {
		return nil, err
	}
	if rev := b.State.View().KV.Revision(); rev != b.Revision {
		return nil, fmt.Errorf("backup: the head has revision %d, the data revision %d", b.Revision, rev)
	}
	b.Bytes = counted.n
	sum.Sum(b.Sum[:0])
	return b, nil
}

// ReadContext reads a backup as Read does, and fails with ctx's cause once ctx has ended.
//
// Errors: an error of r, as it is; ctx's cause; one that matches wire.ErrFormat; for anything else that makes
// no backup fault.ErrCorrupt.
func ReadContext(ctx context.Context, r io.Reader) (*Backup, error) {
	in := &breakable.Reader{Reader: r, Broken: breakable.By(ctx)}
	b, err := Read(in)
	switch {
	case in.Err != nil:
		return nil, in.Err
	case err == nil:
		return b, nil
	}
	err = fmt.Errorf("the backup: %w", err)
	if errors.Is(err, wire.ErrFormat) {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", fault.ErrCorrupt, err)
}

// A counter counts the bytes that it passes on.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
