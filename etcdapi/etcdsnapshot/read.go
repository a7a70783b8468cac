// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie"
)

// An Option is an option of [Read] and [Restore].
type Option interface{ apply(*options) }

type options struct {
	skipHashCheck bool
	bump          uint64
	walDir        string
}

type option func(*options)

func (fn option) apply(o *options) { fn(o) }

// WithSkipHashCheck reads a file without the checksum of a snapshot, for instance the file member/snap/db of an etcd that is
// stopped, or a copy of that. Damage of the structure is found all the same, but not of a value. Such a file may lack changes
// that are only in etcd's log: pass the data directory instead if it exists.
func WithSkipHashCheck() Option { return option(func(o *options) { o.skipHashCheck = true }) }

// WithBumpRevision raises the revision by n, and compacts the history before it, as "etcdutl snapshot restore" does with
// --bump-revision and --mark-compacted. It is for clients that may know revisions after that of the snapshot: a watch from
// one of them ends with an error then, instead of missing changes.
func WithBumpRevision(n uint64) Option {
	return option(func(o *options) { o.bump = n })
}

// WithWALDir names the directory of the write-ahead log of an etcd that has the flag --wal-dir. It is for data directories.
func WithWALDir(dir string) Option { return option(func(o *options) { o.walDir = dir }) }

// Read reads the contents of an etcd snapshot. It holds them in memory, and changes nothing.
//
// The path may also be the data directory of an etcd that is stopped. If a signal has stopped it, its database has everything
// that it has applied. A crash may leave changes in its log alone: Read refuses such a directory with [ErrUnapplied]. A member
// of a cluster may lack changes that the other members have applied, and no file of its own says so: stop the clients
// before the members, or save a snapshot.
//
// A change to a key that etcd has already begun to compact is left out, as etcd would. If the lease of a key does not
// exist in the snapshot, which etcd reports as an error and ignores, the key has none.
//
// Errors: [coterie.ErrCorrupt] if the file is no snapshot, is damaged, or has no checksum; ErrUnapplied;
// [coterie.ErrDirInUse] for the directory of an etcd that runs; [coterie.ErrInvalidOption] for a revision that is raised too
// far; ctx's cause; those of the operating system about the file.
func Read(ctx context.Context, path string, opts ...Option) (*coterie.Contents, error) {
	var o options
	for _, opt := range opts {
		opt.apply(&o)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	var c *coterie.Contents
	kind := "etcd snapshot"
	if info.IsDir() {
		kind = "data directory of etcd"
		c, err = readDirectory(ctx, path, o)
	} else {
		c, err = readSnapshot(ctx, path, o)
	}
	var system *os.PathError
	switch {
	case err == nil && o.bump > 0:
		return bump(c, o.bump)
	case err == nil:
		return c, nil
	case context.Cause(ctx) != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &system), errors.Is(err, ErrUnapplied), errors.Is(err, coterie.ErrDirInUse):
		return nil, fmt.Errorf("%s %s: %w", kind, path, err)
	}
	return nil, fmt.Errorf("%w: %s %s: %w", coterie.ErrCorrupt, kind, path, err)
}

// openFile opens a file to read it, and returns its size.
func openFile(name string) (*os.File, int64, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

// readSnapshot reads a file that ends with a checksum, or need not.
func readSnapshot(ctx context.Context, name string, o options) (*coterie.Contents, error) {
	file, size, err := openFile(name)
	if err != nil {
		return nil, err
	}
	defer file.Close() // it was only read
	checked := size%512 == sha256.Size
	if checked {
		size -= sha256.Size
	}
	switch {
	case checked && !o.skipHashCheck:
		if err := verify(ctx, file, size); err != nil {
			return nil, err
		}
	case !o.skipHashCheck:
		return nil, errors.New("it has no checksum: it is cut off, or not the output of a snapshot")
	}
	im, err := newImporter(ctx, file, size)
	if err != nil {
		return nil, err
	}
	return im.run()
}

// verify compares the checksum behind the first size bytes of a file.
func verify(ctx context.Context, file *os.File, size int64) error {
	h := sha256.New()
	for left := size; left > 0; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := io.CopyN(h, file, min(left, 1<<20))
		if err != nil {
			return err
		}
		left -= n
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(file, want); err != nil {
		return err
	}
	if string(h.Sum(nil)) != string(want) {
		return errors.New("its checksum is wrong")
	}
	return nil
}

// An importer makes contents of the buckets of a database.
type importer struct {
	ctx     context.Context
	buckets map[string]bucket
	leases  map[int64]time.Duration
	builder *coterie.ContentsBuilder
	compact int64 // the compact revision; -1 if there is none
}

// newImporter returns an importer for the database of a file, which is size bytes long.
func newImporter(ctx context.Context, file *os.File, size int64) (*importer, error) {
	d, err := openDatabase(file, size)
	if err != nil {
		return nil, err
	}
	im := &importer{ctx: ctx, buckets: map[string]bucket{}, leases: map[int64]time.Duration{}}
	return im, d.buckets(func(name string, b bucket) error { im.buckets[name] = b; return nil })
}

func (im *importer) run() (*coterie.Contents, error) {
	if _, ok := im.buckets[bucketKey]; !ok {
		return nil, errors.New("it has no bucket of keys")
	}
	if err := im.compactRevision(); err != nil {
		return nil, err
	}
	if err := im.bucket(bucketLease, im.lease); err != nil {
		return nil, err
	}
	s, err := im.survey()
	if err != nil {
		return nil, err
	}
	if im.builder, err = coterie.NewContentsBuilder(s.last, im.compact); err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(im.leases)) {
		if err := im.builder.AddLease(coterie.Lease{ID: coterie.LeaseID(id), TTL: im.leases[id]}); err != nil {
			return nil, err
		}
	}
	if err := im.versions(s); err != nil {
		return nil, err
	}
	if err := im.auth(); err != nil {
		return nil, err
	}
	return im.builder.Contents()
}

// bucket calls fn for each entry of a bucket, unless there is no such bucket or ctx ends.
func (im *importer) bucket(name string, fn func(key, value []byte) error) error {
	b, ok := im.buckets[name]
	if !ok {
		return nil
	}
	b.d.forget()
	return b.entries(func(key, value []byte) error {
		if err := context.Cause(im.ctx); err != nil {
			return err
		}
		if err := fn(key, value); err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
		return nil
	})
}

// compactRevision reads the revision that etcd has compacted to. A compaction that was scheduled counts, even if it
// was not finished: etcd finishes it when it starts.
func (im *importer) compactRevision() error {
	im.compact = -1
	return im.bucket(bucketMeta, func(key, value []byte) error {
		if k := string(key); k != keyScheduledCompact && k != keyFinishedCompact {
			return nil
		}
		r, err := parseRevision(value)
		if err != nil && len(value) == revisionSize && strings.Trim(string(value), "\x00") == "_" {
			err = nil // revision 0
		}
		im.compact = max(im.compact, r.main)
		return err
	})
}

// lease reads a lease. Of its fields, 1 is its ID, and 2 its TTL in seconds.
func (im *importer) lease(key, value []byte) error {
	id, err := parseNumber(key)
	if err != nil {
		return err
	}
	fields := map[protowire.Number]uint64{}
	for len(value) > 0 {
		field, kind, n := protowire.ConsumeTag(value)
		if n < 0 {
			return protowire.ParseError(n)
		}
		value = value[n:]
		if kind == protowire.VarintType {
			fields[field], _ = protowire.ConsumeVarint(value)
		}
		if n = protowire.ConsumeFieldValue(field, kind, value); n < 0 {
			return protowire.ParseError(n)
		}
		value = value[n:]
	}
	if fields[1] != id || id == 0 {
		return fmt.Errorf("lease %016x has ID %016x", id, fields[1])
	}
	seconds := min(max(int64(fields[2]), 1), int64(coterie.MaxTTL/time.Second))
	im.leases[int64(id)] = time.Duration(seconds) * time.Second
	return nil
}

// A survey is knowledge about all changes that is needed before the first is added.
type survey struct {
	last int64 // revision
	// astray has the newest change of each key whose lease does not exist.
	astray map[string]revision
}

func (im *importer) survey() (s survey, err error) {
	s = survey{last: max(im.compact, 1), astray: map[string]revision{}}
	err = im.changes(func(r revision, kv *mvccpb.KeyValue) error {
		s.last = max(s.last, r.main)
		if _, exists := im.leases[kv.Lease]; kv.Lease != 0 && !exists {
			s.astray[string(kv.Key)] = r
		} else if len(s.astray) > 0 {
			delete(s.astray, string(kv.Key))
		}
		return nil
	})
	return s, err
}

// changes calls fn for each change, in the order of revisions.
func (im *importer) changes(fn func(r revision, kv *mvccpb.KeyValue) error) error {
	return im.bucket(bucketKey, func(key, value []byte) error {
		r, err := parseRevision(key)
		if err != nil {
			return err
		}
		kv := &mvccpb.KeyValue{}
		if err := proto.Unmarshal(value, kv); err != nil {
			return fmt.Errorf("revision %d: %w", r.main, err)
		}
		switch {
		case len(kv.Key) == 0 && len(value) == 0 && !r.deleted:
			// "etcdutl snapshot restore --bump-revision" marks the newest revision so.
		case len(kv.Key) == 0 || !r.deleted && (kv.ModRevision != r.main || kv.Version < 1 || kv.CreateRevision < 1):
			return fmt.Errorf("revision %d has an impossible change of key %q", r.main, kv.Key)
		}
		return fn(r, kv)
	})
}

// versions adds all versions: those from before the compact revision in the order of keys, then the changes since in
// the order of revisions.
func (im *importer) versions(s survey) error {
	base := map[string]coterie.KeyValue{}
	var atCompact []coterie.KeyValue
	based := false
	finishBase := func() error {
		if based {
			return nil
		}
		based = true
		all := slices.SortedFunc(maps.Values(base), func(a, b coterie.KeyValue) int { return cmp.Compare(a.Key, b.Key) })
		base = nil
		for _, kv := range append(all, atCompact...) {
			if err := im.builder.AddVersion(kv); err != nil {
				return err
			}
		}
		atCompact = nil
		return nil
	}
	err := im.changes(func(r revision, change *mvccpb.KeyValue) error {
		if len(change.Key) == 0 {
			return nil
		}
		kv := keyValue(r, change)
		if s.astray[kv.Key] == r {
			kv.Lease = 0
		}
		switch {
		case r.main < im.compact && r.deleted:
			delete(base, kv.Key)
		case r.main < im.compact:
			base[kv.Key] = kv
		case r.main == im.compact:
			delete(base, kv.Key)
			atCompact = append(atCompact, kv)
		default:
			if err := finishBase(); err != nil {
				return err
			}
			return im.builder.AddVersion(kv)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return finishBase()
}

func keyValue(r revision, kv *mvccpb.KeyValue) coterie.KeyValue {
	if r.deleted {
		return coterie.KeyValue{Key: string(kv.Key), ModRevision: r.main}
	}
	return coterie.KeyValue{
		Key: string(kv.Key), Value: string(kv.Value), CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision,
		Version: kv.Version, Lease: coterie.LeaseID(kv.Lease),
	}
}

// auth adds users and roles, if there ever were some.
func (im *importer) auth() error {
	a := coterie.AuthContents{Revision: 1}
	err := im.bucket(bucketAuth, func(key, value []byte) (err error) {
		switch string(key) {
		case keyAuthEnabled:
			a.Enabled = string(value) == "\x01"
		case keyAuthRevision:
			a.Revision, err = parseNumber(value)
			a.Revision = max(a.Revision, 1)
		}
		return err
	})
	if err != nil {
		return err
	}
	roles := map[string]bool{coterie.Root: true}
	err = im.bucket(bucketRoles, func(_, value []byte) error {
		role := &authpb.Role{}
		if err := proto.Unmarshal(value, role); err != nil {
			return err
		}
		roles[string(role.Name)] = true
		r := coterie.RoleContents{Name: string(role.Name)}
		for _, p := range role.KeyPermission {
			r.Permissions = append(r.Permissions, coterie.Permission{
				Type: permissionTypes()[p.PermType], Key: string(p.Key), RangeEnd: string(p.RangeEnd),
			})
		}
		slices.SortFunc(r.Permissions, func(a, b coterie.Permission) int {
			return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.RangeEnd, b.RangeEnd))
		})
		a.Roles = append(a.Roles, r)
		return nil
	})
	if err != nil {
		return err
	}
	err = im.bucket(bucketUsers, func(_, value []byte) error {
		user := &authpb.User{}
		if err := proto.Unmarshal(value, user); err != nil {
			return err
		}
		u := coterie.UserContents{Name: string(user.Name), PasswordHash: user.Password, NoPassword: user.Options.GetNoPassword()}
		for _, role := range user.Roles {
			if roles[role] { // etcd ignores a role that does not exist
				u.Roles = append(u.Roles, role)
			}
		}
		slices.Sort(u.Roles)
		a.Users = append(a.Users, u)
		return nil
	})
	if err != nil || a.Revision == 1 && !a.Enabled && len(a.Users)+len(a.Roles) == 0 {
		return err
	}
	return im.builder.SetAuth(a)
}

// permissionTypes maps etcd's types of permissions.
func permissionTypes() map[authpb.Permission_Type]coterie.PermissionType {
	return map[authpb.Permission_Type]coterie.PermissionType{
		authpb.Permission_READ: coterie.PermRead, authpb.Permission_WRITE: coterie.PermWrite, authpb.Permission_READWRITE: coterie.PermReadWrite,
	}
}
