// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// Fault returns an error of this package in the form that users of a directory get: it matches one of the
// values of package fault, or fs.ErrNotExist, and says what to do. An error that already does, or that matches
// wire.ErrFormat, is returned unchanged, and nil as nil.
func Fault(err error) error {
	var corrupt *CorruptError
	switch {
	case err == nil:
		return nil
	case vfs.Short(err):
		return fmt.Errorf("%w: %w", fault.ErrNoSpace, err)
	case errors.Is(err, wire.ErrFormat), errors.Is(err, fault.ErrDirInUse), errors.Is(err, fault.ErrDirNotEmpty), errors.Is(err, fault.ErrStorageMismatch),
		errors.Is(err, fault.ErrRestoreUnfinished):
		return err
	case errors.Is(err, ErrDiverged):
		return fmt.Errorf("%w: %w; decide which history the cluster goes on with, and let the nodes of the other join anew with empty directories",
			fault.ErrCorrupt, err)
	case errors.As(err, &corrupt):
		return fmt.Errorf("%w: %w; if other members have the data, remove this one and let it join anew with an empty directory; else restore a backup",
			fault.ErrCorrupt, err)
	}
	return fmt.Errorf("coterie: %w", err)
}
