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
