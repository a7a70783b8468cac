// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"cmp"
	"context"
	"fmt"
	"strings"
)

// defaultValueBytes is the size of a value unless a load has another one.
const defaultValueBytes = 256

// The prefixes of keys. A key has 8 bytes: the prefix, and a number of seven digits in base 36.
const (
	oldPrefix = 'k' // keys that are put before a workload runs
	newPrefix = 'n' // keys that a workload puts
)

// keyOf returns the key with a number.
func keyOf(prefix byte, n int64) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	var key [8]byte
	key[0] = prefix
	for i := len(key) - 1; i > 0; i-- {
		key[i] = digits[n%36]
		n /= 36
	}
	return string(key[:])
}

// after returns the end of the range of the keys with a prefix.
func after(prefix byte) string { return string(prefix + 1) }

// The values of keys depend on the number of the key. All are parts of one text, so they need no memory of their own.
type values struct {
	text string
	size int
}

// valueKinds is the number of different values.
const valueKinds = 61

func newValues(size int) values {
	var b strings.Builder
	size = cmp.Or(size, defaultValueBytes)
	for n := uint32(1); b.Len() < size+valueKinds; n = n*1664525 + 1013904223 {
		b.WriteByte('a' + byte(n>>24)%26)
	}
	return values{b.String(), size}
}

// of returns the value of the key with a number.
func (v values) of(n int64) string { return v.text[n%valueKinds:][:v.size] }

// Numbered returns a value of at least 20 bytes that begins with a number, for events: see [Number].
func Numbered(n int64, bytes int) string {
	return fmt.Sprintf("%020d%s", n, strings.Repeat(".", max(0, bytes-20)))
}

// Number returns the number of a value that Numbered has made, or -1.
func Number[T string | []byte](value T) (n int64) {
	if len(value) < 20 {
		return -1
	}
	for i := range 20 {
		n = n*10 + int64(value[i]-'0')
	}
	return n
}

// The numbers of callers that put the keys before a workload runs: one key at a time, and several in a transaction.
const (
	fillers      goroutines = 256
	batchFillers goroutines = 16
)

// fillAttempts is how often a put before a workload is tried. On a busy machine etcd gives up after 7 s.
const fillAttempts = 5

// retry calls f until it succeeds, at most fillAttempts times.
func retry(ctx context.Context, f func() error) (err error) {
	for range fillAttempts {
		if err = f(); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

// fill puts the old keys with the numbers from first to n-1, several in each transaction if the store has transactions.
func fill(ctx context.Context, s Store, first, n int, v values) error {
	workers, batch := fillers, 1
	t, ok := s.(Txner)
	if ok {
		workers, batch = batchFillers, min(100, max(1, 1<<20/(v.size+32)))
	}
	return workers.repeat(func(next func() int) error {
		for {
			from := first + next()*batch
			if from >= n {
				return nil
			}
			var keys, vals []string
			for i := int64(from); i < int64(min(from+batch, n)); i++ {
				keys, vals = append(keys, keyOf(oldPrefix, i)), append(vals, v.of(i))
			}
			err := retry(ctx, func() error {
				if len(keys) == 1 {
					return s.Put(ctx, keys[0], vals[0])
				}
				_, err := t.PutAll(ctx, keys, vals)
				return err
			})
			if err != nil {
				return err
			}
		}
	})
}

// fillSingly puts the same keys, each with a call of its own.
func fillSingly(ctx context.Context, s Store, first, n int, v values) error {
	return fillers.repeat(func(next func() int) error {
		for {
			i := int64(first + next())
			if i >= int64(n) {
				return nil
			}
			if err := retry(ctx, func() error { return s.Put(ctx, keyOf(oldPrefix, i), v.of(i)) }); err != nil {
				return err
			}
		}
	})
}
