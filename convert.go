// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

// opResponse gives the result of an operation its public form. Nested headers tell the revision
// alone.
func (n *Node) opResponse(op *command.Op, r *command.Result) OpResponse {
	resp := opResponse(op, r)
	header := n.header(r.Revision)
	switch {
	case resp.Put != nil:
		resp.Put.Header = header
	case resp.Get != nil:
		resp.Get.Header = header
	case resp.Delete != nil:
		resp.Delete.Header = header
	case resp.Txn != nil:
		resp.Txn.Header = header
	}
	return resp
}

func opResponse(op *command.Op, r *command.Result) OpResponse {
	header := Header{Revision: r.Revision}
	switch {
	case op.Put != nil:
		return OpResponse{Put: &PutResponse{Header: header, PrevKV: firstKeyValue(r.KVs)}}
	case op.Get != nil:
		return OpResponse{Get: &GetResponse{Header: header, KVs: keyValues(r.KVs), Count: r.Count, More: r.More}}
	case op.Delete != nil:
		return OpResponse{Delete: &DeleteResponse{Header: header, Deleted: r.Count, PrevKVs: keyValues(r.KVs)}}
	}
	ops := op.Txn.Else
	if r.Succeeded {
		ops = op.Txn.Then
	}
	t := &TxnResponse{Header: header, Succeeded: r.Succeeded}
	for i := range r.Ops {
		t.Responses = append(t.Responses, opResponse(&ops[i], &r.Ops[i]))
	}
	return OpResponse{Txn: t}
}

// resultError is the error of a command that a rule refused, or nil.
func resultError(r *command.Result) error {
	switch r.Code {
	case command.OK:
		return nil
	case command.Compacted:
		return &CompactedError{Revision: r.CompactRevision}
	case command.FutureRevision:
		return ErrFutureRevision
	case command.KeyNotFound:
		return ErrKeyNotFound
	case command.LeaseNotFound:
		return ErrLeaseNotFound
	case command.LeaseExists:
		return ErrLeaseExists
	}
	return fmt.Errorf("%w: result code %d", ErrCorrupt, r.Code)
}

// commandError is the public form of what command.Validate and command.CheckSize return.
func commandError(err error) error {
	var limit *command.LimitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &limit):
		public := fault.LimitError{Limit: limit.Limit, Actual: limit.Actual, Kind: ErrTooManyOps, Unit: "operations", Field: "MaxTxnOps"}
		if limit.Bytes {
			public.Kind, public.Unit, public.Field = ErrTooLarge, "bytes", "MaxRequestBytes"
		}
		return limitError(&public)
	case errors.Is(err, command.ErrEmptyKey):
		return ErrEmptyKey
	case errors.Is(err, command.ErrDuplicateKey):
		return ErrDuplicateKey
	}
	return fmt.Errorf("%w: %w", ErrInvalidOption, err)
}

// revisionError is the public form of what a view's CheckRevision returns.
func revisionError(v *state.View, rev int64) error {
	switch v.KV.CheckRevision(rev) {
	case mvcc.ErrCompacted:
		return &CompactedError{Revision: v.KV.CompactRevision()}
	case mvcc.ErrFuture:
		return ErrFutureRevision
	}
	return nil
}

// damaged is the public form of why what is on disk, or what came from another node, makes no sense.
func damaged(err error) error {
	if format := formatError(err); format != nil {
		return format
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// formatError returns the public form of an error that says that something is of another version's
// format, or nil.
func formatError(err error) error {
	var format *wire.FormatError
	if !errors.As(err, &format) {
		return nil
	}
	return &FormatError{What: format.What, Version: format.Version, Reads: format.Reads, Err: err}
}

// logError returns the public form of an error of package raftlog.
func logError(err error) error {
	if format := formatError(err); format != nil {
		return format
	}
	return raftlog.Fault(err)
}
