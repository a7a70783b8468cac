// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A Code says whether a command was executed, or why it was rejected.
type Code uint8

// The codes. Their numbers are part of the snapshot format.
const (
	OK Code = iota
	Compacted
	FutureRevision
	KeyNotFound
	LeaseNotFound
	LeaseExists
	UnknownProposer // the proposer was evicted from the table, and its proposals are not applied
	ResultDropped   // the command was executed, but its result was too large to keep for a repetition

	// The codes of etcd's rules for users and roles.
	RootUserNotExist
	RootRoleNotExist
	UserExists
	UserEmpty // a user without a name, or a command without a user
	UserNotFound
	RoleExists
	RoleEmpty
	RoleNotFound
	RoleNotGranted
	PermissionNotGranted
	InvalidAuthMgmt
	PermissionDenied
	AuthOldRevision
	AuthNotEnabled
)

// A Result is the result of a command. It is immutable.
type Result struct {
	Code            Code
	Revision        int64           // of the response's header
	CompactRevision int64           // with Compacted
	KVs             []mvcc.KeyValue // of a Get: the keys found; of a Put or Delete with PrevKV: the previous versions
	Count           int64           // of a Get: the keys in the range; of a Delete: the deleted keys
	More            bool            // the limit excluded some keys
	Succeeded       bool            // the compares of a Txn held
	Ops             []Result        // of a Txn: the results of the branch that ran
}

// Size returns the approximate memory use of the result.
func (r *Result) Size() int {
	size := resultOverhead
	for i := range r.KVs {
		kv := &r.KVs[i]
		size += resultOverhead + len(kv.Key) + len(kv.Value)
	}
	for i := range r.Ops {
		size += r.Ops[i].Size()
	}
	return size
}

const resultOverhead = 64

// Append appends the result's encoding to b.
func (r *Result) Append(b []byte) []byte {
	// Size exceeds the size of the encoding.
	return r.append(slices.Grow(b, r.Size()))
}

func (r *Result) append(b []byte) []byte {
	b = wire.Uint(b, 1, uint64(r.Code))
	b = wire.Int(b, 2, r.Revision)
	b = wire.Int(b, 3, r.CompactRevision)
	for i := range r.KVs {
		b = AppendVersion(b, 4, &r.KVs[i])
	}
	b = wire.Int(b, 5, r.Count)
	b = wire.Bool(b, 6, r.More)
	b = wire.Bool(b, 7, r.Succeeded)
	for i := range r.Ops {
		b = wire.LongMessage(b, 8, r.Ops[i].Size()-resultOverhead, r.Ops[i].append)
	}
	return b
}

// DecodeResult reads a result. Its strings are copies.
func DecodeResult(b []byte) (*Result, error) {
	r := &Result{}
	if err := r.decode(b, maxDepth); err != nil {
		return nil, err
	}
	return r, nil
}

// decode reads a result. It counts the keys and operations first, so that each list is allocated once.
func (r *Result) decode(b []byte, depth int) error {
	if depth <= 0 {
		return fmt.Errorf("%w: results nest too deeply", wire.ErrMalformed)
	}
	kvs, ops := 0, 0
	f := wire.NewReader(b)
	for f.Next() {
		switch f.Field() {
		case 4:
			kvs++
		case 8:
			ops++
		}
	}
	if f.Err() != nil {
		return f.Err()
	}
	r.KVs, r.Ops = slices.Grow(r.KVs, kvs), slices.Grow(r.Ops, ops)
	f.Reset(b)
	for f.Next() {
		switch f.Field() {
		case 1:
			r.Code = Code(f.Uint())
		case 2:
			r.Revision = f.Int()
		case 3:
			r.CompactRevision = f.Int()
		case 4:
			// One copy for both strings.
			kv, err := DecodeKeyValue(bytes.Clone(f.Bytes()))
			if err != nil {
				return err
			}
			r.KVs = append(r.KVs, kv)
		case 5:
			r.Count = f.Int()
		case 6:
			r.More = f.Bool()
		case 7:
			r.Succeeded = f.Bool()
		case 8:
			var op Result
			if err := op.decode(f.Bytes(), depth-1); err != nil {
				return err
			}
			r.Ops = append(r.Ops, op)
		}
	}
	return nil
}

// AppendVersion appends field num with the encoding of a version of a key to b.
func AppendVersion(b []byte, num int, kv *mvcc.KeyValue) []byte {
	return wire.LongMessage(b, num, len(kv.Key)+len(kv.Value), func(b []byte) []byte { return AppendKeyValue(b, *kv) })
}

// AppendKeyValue appends the encoding of a version of a key to b.
func AppendKeyValue(b []byte, kv mvcc.KeyValue) []byte {
	b = wire.Text(b, 1, kv.Key)
	b = wire.Text(b, 2, kv.Value)
	b = wire.Int(b, 3, kv.CreateRevision)
	b = wire.Int(b, 4, kv.ModRevision)
	b = wire.Int(b, 5, kv.Version)
	return wire.Int(b, 6, kv.Lease)
}

// DecodeKeyValue reads a version of a key. Its strings share the memory of b.
func DecodeKeyValue(b []byte) (kv mvcc.KeyValue, err error) {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			kv.Key = r.Shared()
		case 2:
			kv.Value = r.Shared()
		case 3:
			kv.CreateRevision = r.Int()
		case 4:
			kv.ModRevision = r.Int()
		case 5:
			kv.Version = r.Int()
		case 6:
			kv.Lease = r.Int()
		}
	}
	return kv, r.Err()
}
