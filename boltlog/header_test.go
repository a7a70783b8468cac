// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/wire"
)

func TestStoredForm(t *testing.T) {
	l := &raft.Log{Index: 7, Term: 3, Data: []byte("data"), Extensions: []byte("more"), AppendedAt: time.Unix(5, 9)}
	s := state{applied: 6, low: 8, high: 300}
	note := reached{transaction: 12, extent: storage.Extent{Index: 7, Term: 3, Snapshot: 5}}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"entry":  {sealEntry(l, 6).Extensions, "ffe067340106000000000000006d6f7265"},
		"record": {sealRecord(keyVote, []byte("vote")), "2415178401766f7465"},
		"state":  {s.encode(), "0206040806ac02"},
		"note":   {encodeNote(9, note), "0b189f320a0000000209040c060708030a05"},
	} {
		require.Equal(t, c.want, hex.EncodeToString(c.got), name)
	}
}

func TestEveryFieldOfAnEntryIsSummed(t *testing.T) {
	for name, change := range map[string]func(l *raft.Log){
		"index":       func(l *raft.Log) { l.Index++ },
		"term":        func(l *raft.Log) { l.Term++ },
		"type":        func(l *raft.Log) { l.Type++ },
		"data":        func(l *raft.Log) { l.Data[0]++ },
		"less data":   func(l *raft.Log) { l.Data = l.Data[1:] },
		"extensions":  func(l *raft.Log) { l.Extensions[entryHeader]++ },
		"version":     func(l *raft.Log) { l.Extensions[4]++ },
		"applied":     func(l *raft.Log) { l.Extensions[5]++ },
		"no header":   func(l *raft.Log) { l.Extensions = nil },
		"appended at": func(l *raft.Log) { l.AppendedAt = l.AppendedAt.Add(1) },
		"no time":     func(l *raft.Log) { l.AppendedAt = time.Time{} },
	} {
		l := &raft.Log{Index: 7, Term: 3, Data: []byte("data"), Extensions: []byte("more"), AppendedAt: time.Unix(5, 9)}
		stored := sealEntry(l, 6)
		stored.Data = append([]byte(nil), stored.Data...)
		change(stored)
		_, err := openEntry(7, stored)
		require.ErrorContains(t, err, "checksum", name)
	}
}

func TestLaterVersionsAreNoDamage(t *testing.T) {
	stored := sealEntry(&raft.Log{Index: 7}, 0)
	stored.Extensions[4] = version + 1
	copy(stored.Extensions, littleEndian(sumEntry(stored)))
	_, err := openEntry(7, stored)
	require.ErrorIs(t, damaged("log.db", err), wire.ErrFormat)
	sealed := sealRecord(keyVote, nil)
	sealed[4] = version + 1
	copy(sealed, littleEndian(sumRecord(keyVote, sealed)))
	_, err = openRecord(keyVote, sealed)
	require.ErrorIs(t, damaged("log.db", err), wire.ErrFormat)
}

func littleEndian(n uint32) []byte {
	return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
}

func TestMisplacedEntryIsFound(t *testing.T) {
	_, err := openEntry(8, sealEntry(&raft.Log{Index: 7}, 0))
	require.ErrorContains(t, err, "entry 7 is stored as entry 8")
}
