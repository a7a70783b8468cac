// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// An importer makes contents of the buckets of a database.
type importer struct {
	ctx     context.Context
	file    *os.File
	unlock  func() error // nil for a snapshot
	d       *database
	buckets map[string]bucket
	leases  map[int64]time.Duration
	builder *coterie.ContentsBuilder
	compact int64 // the compact revision; -1 if there is none
}

// newImporter returns an importer for the database of a file, which is size bytes long. It closes the file if it fails.
func newImporter(ctx context.Context, file *os.File, size int64) (*importer, error) {
	im := &importer{ctx: ctx, file: file, buckets: map[string]bucket{}, leases: map[int64]time.Duration{}}
	d, err := openDatabase(file, size)
	if err == nil {
		im.d = d
		err = d.buckets(func(name string, b bucket) error { im.buckets[name] = b; return nil })
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return im, nil
}

func (im *importer) close() error {
	if im.unlock == nil {
		return im.file.Close()
	}
	return errors.Join(im.file.Close(), im.unlock())
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

// A survey has the facts about all changes that the importer needs before it adds the first one.
type survey struct {
	last int64 // revision
	// astray has the newest change of each key with a lease that does not exist.
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

// auth adds the users and roles. It adds nothing if there never were any.
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
