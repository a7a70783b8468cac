// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"strings"
)

// ErrFormat is matched by every *FormatError.
var ErrFormat = errors.New("another version's format")

// A FormatError says that something is of a version of its format that this program does not read.
// That is no damage.
type FormatError struct {
	What    string // has that version: a file, an entry, a hello
	Version uint64 // which it has; 0: it does not say
	Reads   uint64 // the newest version that this program reads
}

func (e *FormatError) Error() string {
	if e.Version == 0 {
		return fmt.Sprintf("%s is of an unknown format version, this program reads version %d", e.What, e.Reads)
	}
	return fmt.Sprintf("%s is of format version %d, this program reads version %d", e.What, e.Version, e.Reads)
}

// Is reports whether target is ErrFormat.
func (e *FormatError) Is(target error) bool { return target == ErrFormat }

// A Format is one that begins with a magic and, in the byte after it, the version. A later version
// keeps both, and adds what an earlier one must not skip.
type Format struct {
	What    string // for FormatError
	Magic   string
	Version byte // the one that is written, and the only one that is read
}

// Check returns what is wrong with the beginning of something that should be of the format.
//
// Errors: *FormatError if it is of another version, ErrMalformed if it does not begin with the magic.
func (f Format) Check(b []byte) error {
	rest, ok := strings.CutPrefix(string(b[:min(len(b), len(f.Magic)+1)]), f.Magic)
	if !ok || rest == "" || rest[0] == 0 { // versions begin with 1
		return fmt.Errorf("%w: no %s", ErrMalformed, f.What)
	}
	return CheckVersion(f.What, uint64(rest[0]), uint64(f.Version))
}

// CheckVersion returns a *FormatError if something is of another version than the one that this
// program reads.
func CheckVersion(what string, version, reads uint64) error {
	if version == reads {
		return nil
	}
	return &FormatError{What: what, Version: version, Reads: reads}
}

// Append appends the magic and the version, and zeros up to a size.
func (f Format) Append(b []byte, size int) []byte {
	b = append(append(b, f.Magic...), f.Version)
	return append(b, make([]byte, size-len(f.Magic)-1)...)
}
