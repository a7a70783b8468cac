// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"

	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
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
// have had some because it took part in its cluster before the cluster had it on record.
func (id *Identity) withoutLog(dir string) error {
	if id.Since == 0 || id.Floor > 0 {
		return nil
	}
	return &CorruptError{File: filepath.Join(dir, segmentDir), Err: fmt.Errorf("it has no entry, and there is no snapshot, but the member had entry %d", id.Since)}
}

var errIdentityMissing = errors.New("it is missing, and the log is not")

const (
	identityFile  = "identity"
	identityMagic = 8 // bytes of the magic, the version and a zero
)

var identityFormat = wire.Format{What: "identity", Magic: "COTDIR", Version: 1}

// readIdentity returns the identity of the directory, and false if it has none yet.
func readIdentity(fs vfs.FS, dir string) (id Identity, known bool, err error) {
	name := filepath.Join(dir, identityFile)
	file, err := fs.Open(name)
	if isNotExist(err) {
		return id, false, nil
	}
	if err != nil {
		return id, false, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return id, false, err
	}
	b := make([]byte, min(size, 1<<10))
	if _, err := file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return id, false, err
	}
	err = identityFormat.Check(b)
	if errors.Is(err, wire.ErrFormat) {
		return id, false, storage.Damaged(name, err)
	}
	const head = identityMagic + 4
	if err != nil || len(b) < head || b[identityMagic-1] != 0 ||
		crc32.Checksum(b[head:], castagnoli) != binary.LittleEndian.Uint32(b[identityMagic:]) {
		return id, false, &CorruptError{File: name, Err: errors.New("it is not whole")}
	}
	r := wire.NewReader(b[head:])
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
				return Identity{}, false, &CorruptError{File: name, Err: err}
			}
		case 8:
			id.Disputed = r.Bool()
		}
	}
	if r.Err() != nil {
		return Identity{}, false, &CorruptError{File: name, Err: r.Err()}
	}
	return id, true, nil
}

// writeIdentity durably writes the identity of the directory.
func writeIdentity(fs vfs.FS, dir string, id Identity) error {
	if err := stageIdentity(fs, dir, partSuffix, id); err != nil {
		return err
	}
	return settleIdentity(fs, dir, partSuffix)
}

// stageIdentity writes an identity to the identity file's name with suffix.
func stageIdentity(fs vfs.FS, dir, suffix string, id Identity) error {
	b := identityFormat.Append(nil, identityMagic+4)
	b = wire.Uint(b, 1, id.Cluster)
	b = wire.Uint(b, 2, id.Member)
	b = wire.Uint(b, 3, id.Incarnation)
	b = wire.Uint(b, 4, id.Since)
	b = wire.Uint(b, 5, id.Floor)
	b = wire.Bool(b, 6, id.Gathered)
	if id.Runs != (run.Line{}) {
		b = wire.Message(b, 7, id.Runs.Append)
	}
	b = wire.Bool(b, 8, id.Disputed)
	binary.LittleEndian.PutUint32(b[identityMagic:], crc32.Checksum(b[identityMagic+4:], castagnoli))
	file, err := fs.Create(filepath.Join(dir, identityFile) + suffix)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(b, 0)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// settleIdentity durably gives a staged identity its final name.
func settleIdentity(fs vfs.FS, dir, suffix string) error {
	name := filepath.Join(dir, identityFile)
	if err := fs.Rename(name+suffix, name); err != nil {
		return err
	}
	if err := fs.SyncDir(dir); err != nil {
		return fmt.Errorf("making %s durable: %w", name, err)
	}
	return nil
}
