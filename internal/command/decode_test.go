// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
)

// reusing decodes an entry and ends its use, so that a decoder has memory to reuse.
func reusing(t testing.TB, d *command.Decoder, entry []byte) {
	t.Helper()
	_, err := d.Decode(entry)
	require.NoError(t, err)
	d.Reset()
}

func TestDecoderLeavesNothingOfEarlierEntries(t *testing.T) {
	all := proposals()
	var d command.Decoder
	for range 3 {
		reusing(t, &d, entry(all...))
		for i := range all {
			got, err := d.Decode(entry(all[i]))
			require.NoError(t, err)
			require.Equal(t, all[i:i+1], got)
			d.Reset()
		}
		got, err := d.Decode(entry(all...))
		require.NoError(t, err)
		require.Equal(t, all, got)
		d.Reset()
	}
}

// A failed Decode may be followed by another one.
func TestDecoderContinuesAfterAnError(t *testing.T) {
	all := proposals()
	e := entry(all...)
	var d command.Decoder
	for i := range e {
		_, err := d.Decode(e[:i])
		require.Error(t, err)
		_, _ = d.Decode(sealed(e[min(5, i):i]))
		d.Reset()
	}
	got, err := d.Decode(e)
	require.NoError(t, err)
	require.Equal(t, all, got)
}

// The strings of operations share the memory of an entry. The others are copies: a state keeps them.
func TestStringsOfOperationsShareTheEntry(t *testing.T) {
	for _, want := range proposals() {
		e := entry(want)
		got, err := command.DecodeEntry(e)
		require.NoError(t, err)
		text := fmt.Sprintf("%+v", deref(got[0]))
		copy(e, bytes.Repeat([]byte{'P'}, len(e)))
		shares := text != fmt.Sprintf("%+v", deref(got[0]))
		require.Equal(t, want.Command.Op != (command.Op{}), shares, text)
	}
}

// deref returns the parts of a proposal that have strings, without pointers.
func deref(p command.Proposal) (all []any) {
	c := &p.Command
	if c.Put != nil {
		all = append(all, *c.Put)
	}
	if c.Get != nil {
		all = append(all, *c.Get)
	}
	if c.Delete != nil {
		all = append(all, *c.Delete)
	}
	if c.Txn != nil {
		all = append(all, slices.Clone(c.Txn.Compares))
	}
	if c.Enroll != nil {
		all = append(all, *c.Enroll)
	}
	if c.Auth != nil {
		all = append(all, *c.Auth)
	}
	return all
}
