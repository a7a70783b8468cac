// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"
	"reflect"

	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage"
)

// A Storage is a choice of the files in which a node keeps its log, its vote and its identity: see Config.Storage.
// Only packages of coterie implement it. Snapshots are the same with every Storage.
type Storage interface {
	// Format returns the implementation.
	Format() storage.Format
	// String returns the name of the storage, as errors and inspections name it.
	String() string
}

// format returns the format of the directory.
func (c *Config) format() (storage.Format, error) {
	if c.Storage == nil {
		return segments.Format{}, nil
	}
	if nilPointer(c.Storage) {
		return nil, fmt.Errorf("%w: Config.Storage is a nil pointer", ErrInvalidOption)
	}
	f := c.Storage.Format()
	if f == nil || nilPointer(f) {
		return nil, fmt.Errorf("%w: Config.Storage has no format", ErrInvalidOption)
	}
	return f, nil
}

// nilPointer reports whether an interface value holds a nil pointer.
func nilPointer(v any) bool {
	value := reflect.ValueOf(v)
	return value.Kind() == reflect.Pointer && value.IsNil()
}
