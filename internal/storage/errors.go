// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/coterie-kv/coterie/internal/wire"
)

// A CorruptError names a damaged file.
type CorruptError struct {
	File string
	Err  error
}

func (e *CorruptError) Error() string { return fmt.Sprintf("%s is damaged: %v", e.File, e.Err) }

// Unwrap returns the reason.
func (e *CorruptError) Unwrap() error { return e.Err }

// Damaged wraps err in a *CorruptError that names the file. An error that says that the file cannot be read
// stays as it is, and so does one that says that the file has another version, except that it names the file.
func Damaged(file string, err error) error {
	var unread *fs.PathError
	if errors.As(err, &unread) {
		return err
	}
	var format *wire.FormatError
	if errors.As(err, &format) {
		return &wire.FormatError{What: fmt.Sprintf("%s in %s", format.What, file), Version: format.Version, Reads: format.Reads}
	}
	return &CorruptError{file, err}
}
