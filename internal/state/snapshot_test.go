// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/auth"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/golden"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func writeOut(t testing.TB, sn *Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := sn.WriteTo(&b)
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), n)
	return b.Bytes()
}

func bytesOf(t testing.TB, s *State) []byte {
	t.Helper()
	return writeOut(t, s.Snapshot())
}

// roundTrip returns the state restored from a snapshot of s, and checks that it is equal.
func roundTrip(t testing.TB, s *State) *State {
	t.Helper()
	b := bytesOf(t, s)
	restored, err := Read(bytes.NewReader(b))
	require.NoError(t, err)
	require.NoError(t, restored.View().Check())
	require.Equal(t, s.Snapshot().Index(), restored.View().Index)
	require.Equal(t, s.View().Term, restored.View().Term)
	require.Equal(t, s.View().Hash, restored.View().Hash)
	require.Equal(t, b, bytesOf(t, restored))
	return restored
}

// sample returns a small state with some of everything.
func sample(t testing.TB) *State {
	m := start(t)
	m.term = 3
	m.do(command.Command{Term: true, Epoch: 11})
	m.Configure(m.View().Index+1, []Server{{ID: 9, Addr: "z:1"}, {ID: 3, Addr: "c:1", Voter: true}})
	m.do(command.Command{Enroll: &command.Enroll{ID: 9, Name: "z", Addr: "z:2", Incarnation: 77, Voter: true, Run: run.Number{Count: 4, Draw: 5}, Term: 3,
		Start: 6, Described: true, Metadata: "m"}})
	m.grant(7)
	m.grant(-9)
	m.put("compacted", "1")
	m.put("kept", "in the base")
	m.putLease("a", 7)
	m.put("gone", "v")
	m.del("gone", "")
	m.compact(6)
	m.putLease("a", -9)
	m.put("a", strings.Repeat("v", 200))
	m.putLease("b", 7)
	m.propose(register(5))
	m.propose(proposal(5, 2, 2, nest(ops(put("c", ""), command.Op{Delete: &command.Delete{Key: "a", End: "c", PrevKV: true}}))),
		proposal(5, 4, 2, command.Op{Get: &command.Get{Key: "kept", Revision: 2}}))
	m.Advance(100)
	return m.State
}

// withUsers returns the sample with users and roles.
func withUsers(t testing.TB) *State {
	s := sample(t)
	for i, c := range []command.Auth{
		{Action: command.UserAdd, User: auth.Root, NoPassword: true},
		{Action: command.UserGrantRole, User: auth.Root, Role: auth.Root},
		{Action: command.RoleAdd, Role: "r"},
		{Action: command.RoleAdd, Role: "empty"},
		{Action: command.RoleGrantPermission, Role: "r", Permission: command.Permission{Access: command.ReadWrite, Key: "b", End: "\x00"}},
		{Action: command.RoleGrantPermission, Role: "r", Permission: command.Permission{Key: "a"}},
		{Action: command.RoleGrantPermission, Role: "r", Permission: command.Permission{Access: command.Write, Key: "a", End: "b"}},
		{Action: command.UserAdd, User: "u", Hash: "h\xff"},
		{Action: command.UserGrantRole, User: "u", Role: "r"},
		{Action: command.UserGrantRole, User: "u", Role: "empty"},
		{Action: command.AuthEnable},
		{Action: command.AuthSecret, Hash: "secret"},
	} {
		next, code := s.auth.Apply(&c)
		require.Equal(t, command.OK, code, i)
		s.auth = next
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	roundTrip(t, New())
	roundTrip(t, sample(t))
	roundTrip(t, withUsers(t))
	s := sample(t)
	s.kv.Compact(s.kv.Revision())
	roundTrip(t, s)
}

func TestGoldenSnapshot(t *testing.T) {
	t.Run("without users", func(t *testing.T) { requireGolden(t, "snapshot.golden", sample(t)) })
	t.Run("with users", func(t *testing.T) { requireGolden(t, "users.golden", withUsers(t)) })
}

// requireGolden compares the snapshot of a state with a golden file.
func requireGolden(t *testing.T, name string, s *State) {
	t.Helper()
	got := bytesOf(t, s)
	want := golden.File(t, *update, name, got)
	require.Equal(t, want, got, "the format has changed: increment its version, or undo the change")
	restored, err := Read(bytes.NewReader(want))
	require.NoError(t, err)
	require.Equal(t, s.View().Hash, restored.View().Hash)
	require.Equal(t, want, bytesOf(t, restored))
}

// Earlier versions read streams of version 1, and know no users.
func TestSnapshotWithUsersHasVersion2(t *testing.T) {
	version := func(s *State) byte { return bytesOf(t, s)[len("COTERIE")] }
	require.Equal(t, command.Blocks1, version(New()))
	require.Equal(t, command.Blocks1, version(sample(t)))
	s := withUsers(t)
	require.Equal(t, command.Blocks2, version(s))
	for _, action := range []command.AuthAction{command.AuthDisable, command.UserDelete} {
		var code command.Code
		s.auth, code = s.auth.Apply(&command.Auth{Action: action, User: "u"})
		require.Equal(t, command.OK, code)
		require.Equal(t, command.Blocks2, version(s), "the revision stays")
	}
}

func TestSnapshotIsWrittenWhileStateChanges(t *testing.T) {
	m := start(t)
	m.grant(7)
	for i := range 3000 {
		m.propose(proposal(me, uint64(i+100), uint64(i+90), put(fmt.Sprint("k", i%500), strings.Repeat("v", i%100))))
	}
	sn := m.Snapshot()
	want := writeOut(t, sn)
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := sn.WriteTo(w)
		w.CloseWithError(err)
		done <- err
	}()
	var got bytes.Buffer
	for i := range 200 {
		_, err := io.CopyN(&got, r, 100)
		require.NoError(t, err)
		m.propose(proposal(me, uint64(i+5000), uint64(i+5000), del(fmt.Sprint("k", i), "")))
		if i%50 == 0 {
			m.propose(command.Proposal{Command: command.Command{Compact: &command.Compact{Revision: m.kv.Revision() - 1}}})
		}
	}
	_, err := io.Copy(&got, r)
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.Equal(t, want, got.Bytes())
}

func TestFailingWriterIsReported(t *testing.T) {
	s := filled(t, 5000)
	broken := errors.New("broken")
	_, err := s.Snapshot().WriteTo(&failing{left: 100_000, err: broken})
	require.ErrorIs(t, err, broken)
}

type failing struct {
	left int
	err  error
}

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, f.err
	}
	return len(b), nil
}

func TestFailingReaderIsReported(t *testing.T) {
	broken := errors.New("broken")
	b := bytesOf(t, sample(t))
	_, err := Read(io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotestErr{broken}))
	require.ErrorIs(t, err, broken)
}

type iotestErr struct{ err error }

func (r iotestErr) Read([]byte) (int, error) { return 0, r.err }

func TestEveryDamageOfSnapshotIsFound(t *testing.T) {
	b := bytesOf(t, withUsers(t))
	var corrupt *command.CorruptError
	for i := range b {
		s, err := Read(bytes.NewReader(b[:i]))
		require.ErrorAs(t, err, &corrupt, "cut at %d", i)
		require.Nil(t, s)
		for _, mask := range []byte{1, 0x80, 0xff} {
			damaged := bytes.Clone(b)
			damaged[i] ^= mask
			s, err = Read(bytes.NewReader(damaged))
			require.Error(t, err, "flipped at %d", i)
			require.Nil(t, s)
			require.True(t, errors.As(err, &corrupt) || errors.Is(err, wire.ErrFormat), "flipped at %d: %v", i, err)
		}
	}
	_, err := Read(bytes.NewReader(append(bytes.Clone(b), 0)))
	require.ErrorAs(t, err, &corrupt, "something follows the end")
}

// stream returns valid blocks with these records.
func stream(t testing.TB, records ...[]byte) []byte {
	var b bytes.Buffer
	w := command.NewBlockWriter(&b)
	for _, r := range records {
		require.NoError(t, w.Record(func(b []byte) []byte { return append(b, r...) }))
	}
	_, err := w.Close()
	require.NoError(t, err)
	return b.Bytes()
}

func message(field int, encode func(b []byte) []byte) []byte { return wire.Message(nil, field, encode) }

func headRecord(rev, compacted int64) []byte {
	return message(recordHead, func(b []byte) []byte { return wire.Int(wire.Int(wire.Uint(b, 1, 5), 4, rev), 5, compacted) })
}

func leaseRecord(id, ttl int64) []byte {
	return message(recordLease, func(b []byte) []byte { return wire.Int(wire.Int(b, 1, id), 2, ttl) })
}

func proposerRecord(id, lowest uint64) []byte {
	return message(recordProposer, func(b []byte) []byte { return wire.Uint(wire.Uint(b, 1, id), 3, lowest) })
}

func resultRecord(seq uint64) []byte {
	return message(recordResult, func(b []byte) []byte { return wire.Uint(b, 1, seq) })
}

func versionRecord(key string, create, mod, version, lease int64) []byte {
	return message(recordVersion, func(b []byte) []byte {
		b = wire.Text(b, 1, key)
		b = wire.Int(wire.Int(b, 3, create), 4, mod)
		return wire.Int(wire.Int(b, 5, version), 6, lease)
	})
}

func TestIntactBlocksWithoutState(t *testing.T) {
	head := headRecord(2, -1)
	change := versionRecord("k", 2, 2, 1, 0)
	read := func(records ...[]byte) error {
		s, err := Read(bytes.NewReader(stream(t, records...)))
		require.Equal(t, err == nil, s != nil)
		if err == nil {
			require.NoError(t, s.View().Check())
		}
		return err
	}
	require.NoError(t, read(head, change))
	require.NoError(t, read(head, leaseRecord(7, 1), proposerRecord(1, 0), resultRecord(1), resultRecord(2), versionRecord("k", 2, 2, 1, 7)))
	future := message(900, func(b []byte) []byte { return append(b, "of a newer version"...) })
	require.NoError(t, read(head, future, change), "unknown records are skipped")
	require.NoError(t, read(wire.Text(head, 900, "next to known fields"), change))

	store := message(recordAuth, (&auth.Store{Revision: 9}).Append)
	role := func(name string, permissions ...command.Permission) []byte {
		return message(recordRole, (&auth.Role{Name: name, Permissions: permissions}).Append)
	}
	user := func(name string, roles ...string) []byte {
		return message(recordUser, (&auth.User{Name: name, Roles: roles}).Append)
	}
	a, b := command.Permission{Key: "a"}, command.Permission{Key: "b"}
	require.NoError(t, read(head, store, role("r", a, b), role("s"), user("u", "r", "root", "s"), user("v"), change))

	alarm := func(member, kind uint64) []byte { return message(recordAlarm, Alarm{member, kind}.append) }
	require.NoError(t, read(head, alarm(0, 1), alarm(0, 2), alarm(7, 0), change))

	for name, records := range map[string][][]byte{
		"alarms out of order":         {head, alarm(7, 0), alarm(0, 1), change},
		"an alarm twice":              {head, alarm(7, 1), alarm(7, 1), change},
		"two stores of users":         {head, store, store, change},
		"a user without a store":      {head, user("u"), change},
		"a role without a store":      {head, role("r"), change},
		"a user without a name":       {head, store, user(""), change},
		"a role without a name":       {head, store, role(""), change},
		"a user twice":                {head, store, user("u"), user("u"), change},
		"roles out of order":          {head, store, role("s"), role("r"), change},
		"a role that does not exist":  {head, store, user("u", "r"), change},
		"a user's roles out of order": {head, store, role("r"), role("s"), user("u", "s", "r"), change},
		"permissions out of order":    {head, store, role("r", b, a), change},
		"a permission twice":          {head, store, role("r", a, a), change},
		"a permission without a key":  {head, store, role("r", command.Permission{}), change},
		"a permission of no range":    {head, store, role("r", command.Permission{Key: "b", End: "a"}), change},
		"an unknown access":           {head, store, role("r", command.Permission{Access: 3, Key: "a"}), change},
		"auth revision 0":             {head, message(recordAuth, (&auth.Store{}).Append), change},
		"enabled without root":        {head, message(recordAuth, (&auth.Store{Revision: 2, Enabled: true}).Append), change},
		"nothing":                     {},
		"no head":                     {change},
		"head comes late":             {leaseRecord(7, 1), head, change},
		"two heads":                   {head, head, change},
		"revision 0":                  {headRecord(0, -1)},
		"compacted in the future":     {headRecord(2, 3), change},
		"compacted below -1":          {headRecord(2, -2), change},
		"history too short":           {head},
		"history too long":            {head, change, versionRecord("k", 2, 3, 2, 0)},
		"a hole in history":           {headRecord(3, -1), versionRecord("k", 3, 3, 1, 0)},
		"empty key":                   {head, versionRecord("", 2, 2, 1, 0)},
		"deletes nothing":             {head, versionRecord("k", 0, 2, 0, 0)},
		"unknown lease":               {head, versionRecord("k", 2, 2, 1, 7)},
		"lease twice":                 {head, leaseRecord(7, 1), leaseRecord(7, 1), change},
		"proposer twice":              {head, proposerRecord(3, 0), proposerRecord(3, 0), change},
		"proposers out of order":      {head, proposerRecord(3, 0), proposerRecord(2, 0), change},
		"proposer 0":                  {head, proposerRecord(0, 0), change},
		"no proposer":                 {head, resultRecord(1), change},
		"results out of order":        {head, proposerRecord(3, 0), resultRecord(2), resultRecord(2), change},
		"result below the lowest":     {head, proposerRecord(3, 2), resultRecord(1), change},
		"malformed record":            {head, {0x80}, change},
		"malformed lease":             {head, message(recordLease, func(b []byte) []byte { return append(b, 0x80) }), change},
	} {
		require.Error(t, read(records...), name)
	}
}

// An earlier version, which would lose the alarms, does not read a snapshot that has some.
func TestSnapshotWithAlarmsHasVersion2(t *testing.T) {
	s := New()
	require.Equal(t, command.Blocks1, bytesOf(t, s)[len("COTERIE")])
	require.EqualValues(t, 1, s.alarm(&command.Alarm{Member: 7, Kind: 1}))
	require.Equal(t, command.Blocks2, bytesOf(t, s)[len("COTERIE")])
	require.Equal(t, Alarms{{7, 1}}, roundTrip(t, s).View().Alarms)
	require.EqualValues(t, 1, s.alarm(&command.Alarm{Member: 7, Kind: 1, Clear: true}))
	require.Equal(t, command.Blocks1, bytesOf(t, s)[len("COTERIE")])
}

func TestUnknownVersionIsNamed(t *testing.T) {
	b := bytesOf(t, New())
	b[len("COTERIE")] = command.Blocks2 + 1
	_, err := Read(bytes.NewReader(b))
	require.ErrorIs(t, err, wire.ErrFormat)
}

func FuzzRead(f *testing.F) {
	f.Add(bytesOf(f, New()))
	f.Add(bytesOf(f, sample(f)))
	f.Add(bytesOf(f, withUsers(f)))
	f.Add(stream(f, headRecord(3, 2), versionRecord("a", 1, 1, 1, 0), versionRecord("b", 0, 2, 0, 0), versionRecord("a", 1, 3, 2, 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Read(bytes.NewReader(b))
		if err != nil {
			require.Nil(t, s)
			return
		}
		require.NoError(t, s.View().Check())
		roundTrip(t, s)
	})
}

// FuzzRecords is FuzzRead with valid checksums.
func FuzzRecords(f *testing.F) {
	records := func(b []byte) (joined []byte) {
		require.NoError(f, command.ReadBlocks(bytes.NewReader(b), func(r []byte) error {
			joined = wire.Element(joined, 1, r)
			return nil
		}))
		return joined
	}
	f.Add(records(bytesOf(f, New())))
	f.Add(records(bytesOf(f, sample(f))))
	f.Add(records(bytesOf(f, withUsers(f))))
	f.Fuzz(func(t *testing.T, b []byte) {
		var split [][]byte
		for r := wire.NewReader(b); r.Next(); {
			split = append(split, r.Bytes())
		}
		s, err := Read(bytes.NewReader(stream(t, split...)))
		if err != nil {
			return
		}
		require.NoError(t, s.View().Check())
		roundTrip(t, s)
	})
}
