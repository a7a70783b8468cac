// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"strings"
)

// ErrFormat is matched by every *FormatError.
var ErrFormat = errors.New("another version's format")

// A FormatError says that data has a format version that this program does not read. That is not damage.
type FormatError struct {
	What    string // the data of that version: a file, an entry, a hello
	Version uint64 // its version; 0 if it does not say
	Reads   uint64 // the newest version that this program reads
}

func (e *FormatError) Error() string {
	if e.Version == 0 {
		return fmt.Sprintf("%s has an unknown format version, this program reads version %d", e.What, e.Reads)
	}
	return fmt.Sprintf("%s has format version %d, this program reads version %d", e.What, e.Version, e.Reads)
}

// Is reports whether target is ErrFormat.
func (e *FormatError) Is(target error) bool { return target == ErrFormat }

// A Format begins with a magic number, followed by a byte with the version. Later versions keep both, and
// add data that an earlier version must not skip.
type Format struct {
	What    string // for FormatError
	Magic   string
	Version byte // the version that is written, and the only one that is read
}

// Check checks the beginning of data that should have the format.
//
// Errors: *FormatError if it has another version, ErrMalformed if it does not begin with the magic
// number.
func (f Format) Check(b []byte) error {
	rest, ok := strings.CutPrefix(string(b[:min(len(b), len(f.Magic)+1)]), f.Magic)
	if !ok || rest == "" || rest[0] == 0 { // versions begin with 1
		return fmt.Errorf("%w: no %s", ErrMalformed, f.What)
	}
	return CheckVersion(f.What, uint64(rest[0]), uint64(f.Version))
}

// CheckVersion returns a *FormatError if version differs from the version that this program reads.
func CheckVersion(what string, version, reads uint64) error {
	if version == reads {
		return nil
	}
	return &FormatError{What: what, Version: version, Reads: reads}
}

// Append appends the magic number, the version, and zeros up to a size.
func (f Format) Append(b []byte, size int) []byte {
	b = append(append(b, f.Magic...), f.Version)
	return append(b, make([]byte, size-len(f.Magic)-1)...)
}
