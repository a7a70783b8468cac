// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie"
)

// StorageVersion is the version of etcd's storage that snapshots have.
const StorageVersion = "3.7.0"

// ChecksumSize is the size of the SHA-256 at the end of a snapshot.
const ChecksumSize = sha256.Size

// A Snapshot is an etcd snapshot that can be read: a database of bbolt, and its SHA-256. It is in a temporary file
// until it is closed.
type Snapshot struct {
	io.Reader
	file *os.File
	size int64
}

// Size returns the number of bytes of the snapshot.
func (s *Snapshot) Size() int64 { return s.size }

// Close removes the temporary file.
func (s *Snapshot) Close() error { return errors.Join(s.file.Close(), os.Remove(s.file.Name())) }

// Write writes contents as an etcd snapshot.
//
// Errors: those of [New], and those of w.
func Write(ctx context.Context, w io.Writer, c *coterie.Contents) error {
	s, err := New(ctx, c)
	if err != nil {
		return err
	}
	defer s.Close()
	b := make([]byte, 1<<20)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		switch n, err := s.Read(b); {
		case n > 0:
			if _, err := w.Write(b[:n]); err != nil {
				return err
			}
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// New makes an etcd snapshot of contents, in the temporary directory of the system. The caller closes it. Equal
// contents make equal snapshots.
//
// Errors: ctx's cause; those of the operating system about the temporary file.
func New(ctx context.Context, c *coterie.Contents) (*Snapshot, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp("", "coterie-*.etcd")
	if err != nil {
		return nil, err
	}
	s := &Snapshot{file: file}
	if err := s.fill(ctx, c); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Snapshot) fill(ctx context.Context, c *coterie.Contents) error {
	db, err := bolt.Open(s.file.Name(), 0o600, &bolt.Options{NoSync: true, NoGrowSync: true, PageSize: 4096, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	ex := &exporter{ctx: ctx, db: db}
	if err := errors.Join(ex.run(c), db.Close()); err != nil {
		return err
	}
	h := sha256.New()
	size, err := io.Copy(h, s.file)
	if err != nil {
		return err
	}
	if _, err = s.file.Write(h.Sum(nil)); err != nil {
		return err
	}
	if _, err = s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s.Reader, s.size = s.file, size+sha256.Size
	return nil
}

// An exporter fills a database. It commits transactions of a bounded size, because a transaction holds its pages in
// memory.
type exporter struct {
	ctx   context.Context
	db    *bolt.DB
	tx    *bolt.Tx
	bytes int // put in tx
}

const maxTxBytes = 8 << 20

func (ex *exporter) run(c *coterie.Contents) (err error) {
	if ex.tx, err = ex.db.Begin(true); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ex.tx.Rollback())
		}
	}()
	for _, name := range buckets() {
		if _, err := ex.tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	for _, fill := range []func(*coterie.Contents) error{ex.meta, ex.leases, ex.auth, ex.keys} {
		if err := fill(c); err != nil {
			return err
		}
	}
	return ex.tx.Commit()
}

// put stores an entry. The caller must not change key and value afterwards.
func (ex *exporter) put(bucket string, key, value []byte) error {
	if ex.bytes > maxTxBytes {
		if err := context.Cause(ex.ctx); err != nil {
			return err
		}
		if err := ex.tx.Commit(); err != nil {
			return err
		}
		tx, err := ex.db.Begin(true)
		if err != nil {
			return err
		}
		ex.tx, ex.bytes = tx, 0
	}
	ex.bytes += len(key) + len(value)
	b := ex.tx.Bucket([]byte(bucket))
	b.FillPercent = 0.95 // the keys are put in order
	return b.Put(key, value)
}

func (ex *exporter) putMessage(bucket string, key []byte, m proto.Message) error {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	return ex.put(bucket, key, value)
}

// meta stores the compaction and the version of the storage. The storage is up to date with the beginning of
// raft's log, so index and term are those of its first entry. etcdutl replaces them by those of the log that it
// makes.
func (ex *exporter) meta(c *coterie.Contents) error {
	err := errors.Join(
		ex.put(bucketMeta, []byte(keyConsistentIndex), number(1)),
		ex.put(bucketMeta, []byte(keyStorageVersion), []byte(StorageVersion)),
		ex.put(bucketMeta, []byte(keyTerm), number(1)),
	)
	if rev := c.CompactRevision(); err == nil && rev >= 0 {
		value := revision{main: rev}.append(nil)
		err = errors.Join(
			ex.put(bucketMeta, []byte(keyFinishedCompact), value),
			ex.put(bucketMeta, []byte(keyScheduledCompact), value),
		)
	}
	return err
}

// leases stores the leases. Of the fields, 1 is the ID, and 2 the TTL in seconds.
func (ex *exporter) leases(c *coterie.Contents) error {
	for l := range c.Leases() {
		seconds := (l.TTL + time.Second - 1) / time.Second
		value := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(l.ID))
		value = protowire.AppendVarint(protowire.AppendTag(value, 2, protowire.VarintType), uint64(seconds))
		if err := ex.put(bucketLease, number(uint64(l.ID)), value); err != nil {
			return err
		}
	}
	return nil
}

// keys stores every version of every key, in the order of revisions.
func (ex *exporter) keys(c *coterie.Contents) error {
	first := max(c.CompactRevision(), 2) // of the history
	var base []coterie.KeyValue
	n := numberer{}
	flush := func() error {
		slices.SortFunc(base, func(a, b coterie.KeyValue) int {
			return cmp.Or(cmp.Compare(a.ModRevision, b.ModRevision), cmp.Compare(a.Key, b.Key))
		})
		for _, kv := range base {
			if err := ex.key(n.next(kv), kv); err != nil {
				return err
			}
		}
		base = nil
		return nil
	}
	for kv := range c.Versions() {
		if kv.ModRevision < first {
			base = append(base, kv)
			continue
		}
		if len(base) > 0 {
			if err := flush(); err != nil {
				return err
			}
		}
		if err := ex.key(n.next(kv), kv); err != nil {
			return err
		}
	}
	return flush()
}

// A numberer numbers the changes of each revision.
type numberer struct{ last revision }

func (n *numberer) next(kv coterie.KeyValue) revision {
	if n.last.main == kv.ModRevision {
		n.last.sub++
	} else {
		n.last = revision{main: kv.ModRevision}
	}
	n.last.deleted = kv.Version == 0
	return n.last
}

func (ex *exporter) key(r revision, kv coterie.KeyValue) error {
	stored := &mvccpb.KeyValue{Key: []byte(kv.Key)}
	if !r.deleted {
		stored = &mvccpb.KeyValue{
			Key: []byte(kv.Key), Value: []byte(kv.Value), CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision,
			Version: kv.Version, Lease: int64(kv.Lease),
		}
	}
	if err := ex.putMessage(bucketKey, r.append(nil), stored); err != nil {
		return fmt.Errorf("key %q: %w", kv.Key, err)
	}
	return nil
}

// auth stores the users and roles.
func (ex *exporter) auth(c *coterie.Contents) error {
	a := c.Auth()
	enabled := []byte{0}
	if a.Enabled {
		enabled[0] = 1
	}
	err := errors.Join(ex.put(bucketAuth, []byte(keyAuthEnabled), enabled), ex.put(bucketAuth, []byte(keyAuthRevision), number(a.Revision)))
	for _, r := range a.Roles {
		role := &authpb.Role{Name: []byte(r.Name)}
		for _, p := range r.Permissions {
			role.KeyPermission = append(role.KeyPermission, &authpb.Permission{
				PermType: etcdPermissionTypes()[p.Type], Key: []byte(p.Key), RangeEnd: []byte(p.RangeEnd),
			})
		}
		err = errors.Join(err, ex.putMessage(bucketRoles, []byte(r.Name), role))
	}
	for _, u := range a.Users {
		err = errors.Join(err, ex.putMessage(bucketUsers, []byte(u.Name), &authpb.User{
			Name: []byte(u.Name), Password: u.PasswordHash, Roles: u.Roles, Options: &authpb.UserAddOptions{NoPassword: u.NoPassword},
		}))
	}
	return err
}

// etcdPermissionTypes is the reverse of permissionTypes.
func etcdPermissionTypes() map[coterie.PermissionType]authpb.Permission_Type {
	all := map[coterie.PermissionType]authpb.Permission_Type{}
	for theirs, ours := range permissionTypes() {
		all[ours] = theirs
	}
	return all
}
