// SPDX-License-Identifier: Apache-2.0

package sharedconfig

import (
	"errors"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie"
)

// A Config says where a value is stored, and what is a good one. The functions may be called from
// several goroutines, those of the Value among them: while one of them blocks, the Value stands still, and
// nothing else does. A document at which they panic is bad.
type Config[T any] struct {
	// Keys are where the value is stored: one key, or layers, from the general to the particular,
	// as "config", "config/orders", "config/orders/a". Update, Rollback and History concern the
	// last.
	Keys []string
	// Default is what is below all layers, and the value as long as none is stored.
	Default T
	// Validate returns why a value is bad; nil: every value that can be decoded is good.
	Validate func(T) error
	// Decode and Encode are for values that are no JSON documents: both or none, and with one key.
	Decode func(string) (T, error)
	Encode func(T) (string, error)
	// History is how many versions are kept besides the present one. 0 is 10; negative: none.
	History int
	// File keeps the last good value on this machine, for a start without a quorum. It is replaced
	// whole or not at all, by way of a file of the same name and ".tmp"; one that is damaged is as
	// none. It is for one Value at a time. Open makes it absolute. Empty: none is kept.
	File string
}

const defaultHistory = 10

func (c *Config[T]) check() error {
	switch {
	case len(c.Keys) == 0:
		return fmt.Errorf("%w: a shared configuration value needs a key", coterie.ErrInvalidOption)
	case slices.Contains(c.Keys, ""):
		return fmt.Errorf("%w of a shared configuration value", coterie.ErrEmptyKey)
	case len(slices.Compact(slices.Sorted(slices.Values(c.Keys)))) < len(c.Keys):
		return fmt.Errorf("%w: two layers of a shared configuration value have one key", coterie.ErrInvalidOption)
	case (c.Decode == nil) != (c.Encode == nil):
		return fmt.Errorf("%w: Decode and Encode of a shared configuration value go together", coterie.ErrInvalidOption)
	case c.Decode != nil && len(c.Keys) > 1:
		return fmt.Errorf("%w: layers of a shared configuration value are JSON documents", coterie.ErrInvalidOption)
	}
	if c.History == 0 {
		c.History = defaultHistory
	}
	return nil
}

// ErrNoVersion: Rollback was asked for a version that is not kept, or never was.
var ErrNoVersion = errors.New("sharedconfig: no such version")

// A RejectedError says why a value is not used. It wraps the error of the decoder or of Validate,
// or names the value of their panic.
type RejectedError struct {
	// Revision of the store in which it was found; 0: it was refused before it was stored.
	Revision int64
	Err      error
}

func (e *RejectedError) Error() string {
	if e.Revision == 0 {
		return fmt.Sprintf("sharedconfig: not stored: %v", e.Err)
	}
	return fmt.Sprintf("sharedconfig: not used, of revision %d: %v", e.Revision, e.Err)
}

func (e *RejectedError) Unwrap() error { return e.Err }
