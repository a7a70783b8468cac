// SPDX-License-Identifier: Apache-2.0

package sharedconfig

import (
	"errors"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie"
)

// A Config says where a value is stored and which values are good. Its functions must be safe for concurrent use:
// callers and the goroutines of the [Value] call them. While one of them blocks, this Value does not change;
// nothing else is affected. A document for which one of them panics is bad.
type Config[T any] struct {
	// Keys are the keys of the value: one key, or several layers from general to particular, such as
	// "config", "config/orders", "config/orders/a". Update, Rollback and History use the last key.
	Keys []string
	// Default is below all layers. It is the value as long as none is stored.
	Default T
	// Validate returns an error for a bad value. If it is nil, every value that can be decoded is good.
	Validate func(T) error
	// Decode and Encode are for values that are not JSON documents. Set both or neither, and use one key.
	Decode func(string) (T, error)
	Encode func(T) (string, error)
	// History is the number of versions that are kept besides the current one. 0 means 10; a negative number
	// means none.
	History int
	// File is the name of a file with the last good value, for a start without a quorum. If it is empty, there is
	// no file. A new value is written to a file with the suffix ".tmp", which then replaces the file in one step.
	// Open ignores a damaged file. Only one Value at a time may use a file. Open makes the name absolute.
	File string
}

const defaultHistory = 10

func (c *Config[T]) check() error {
	switch {
	case len(c.Keys) == 0:
		return fmt.Errorf("%w: a value needs a key", coterie.ErrInvalidOption)
	case slices.Contains(c.Keys, ""):
		return fmt.Errorf("%w in Config.Keys", coterie.ErrEmptyKey)
	case len(slices.Compact(slices.Sorted(slices.Values(c.Keys)))) < len(c.Keys):
		return fmt.Errorf("%w: two layers have the same key", coterie.ErrInvalidOption)
	case (c.Decode == nil) != (c.Encode == nil):
		return fmt.Errorf("%w: Decode and Encode go together", coterie.ErrInvalidOption)
	case c.Decode != nil && len(c.Keys) > 1:
		return fmt.Errorf("%w: values with Decode and Encode have one key", coterie.ErrInvalidOption)
	}
	if c.History == 0 {
		c.History = defaultHistory
	}
	return nil
}

// ErrNoVersion means that Rollback got the revision of a version that does not exist or is no longer kept.
var ErrNoVersion = errors.New("sharedconfig: no such version")

// A RejectedError is the reason why a value is bad. It wraps the error of the decoder or of Validate, or has the
// value with which one of them panicked.
type RejectedError struct {
	// Key is the last of Config.Keys, by which the value is known. If it has several layers, the document of
	// another key may be the bad one.
	Key string `json:"key"`
	// Revision is the revision of the store that has the value. It is 0 if the value was rejected before it was
	// stored.
	Revision int64 `json:"revision"`
	Err      error `json:"err,omitempty"`
}

func (e *RejectedError) Error() string {
	if e.Revision == 0 {
		return fmt.Sprintf("sharedconfig: the value for %s is bad and was not stored: %v", e.Key, e.Err)
	}
	return fmt.Sprintf("sharedconfig: the value of %s at revision %d is bad and not used: %v", e.Key, e.Revision, e.Err)
}

func (e *RejectedError) Unwrap() error { return e.Err }
