// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

// childDirectory tells a process of this test that it is the other one, and what it is to open.
const childDirectory = "RAFTLOG_TEST_DIRECTORY"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirectory); dir != "" {
		_, err := Open(dir, hclog.NewNullLogger())
		fmt.Println(err == nil, errors.Is(err, ErrInUse))
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed, or the other process ends
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child starts a process that opens a directory, and returns what came of it.
func child(t *testing.T, dir string) (opened, inUse bool, kill func()) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childDirectory+"="+dir)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	kill = func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // which says that it was killed
		_ = in.Close()
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	_, err = fmt.Sscan(line, &opened, &inUse)
	require.NoError(t, err)
	return opened, inUse, kill
}

func requireInUse(t *testing.T, dir string) {
	t.Helper()
	l, err := Open(dir, hclog.NewNullLogger())
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, dir)
	require.Nil(t, l)
}

func TestADirectoryIsOpenedOnce(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	requireInUse(t, dir)
	require.NoError(t, l.Logs().StoreLogs(entries(1, 5, 1)))
	requireInUse(t, dir)
	require.NoError(t, l.Close())
	holds(t, open(t, dir).Logs(), entries(1, 5, 1)...)
}

func TestADirectoryIsOpenedByOneProcess(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	opened, inUse, kill := child(t, dir)
	require.False(t, opened)
	require.True(t, inUse)
	kill()

	require.NoError(t, l.Close())
	opened, inUse, kill = child(t, dir)
	require.True(t, opened)
	require.False(t, inUse)
	requireInUse(t, dir)
	kill()
	holds(t, open(t, dir).Logs())
}

func TestEverythingIsThereAfterAReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "if need be")
	l := open(t, dir)
	require.NoError(t, l.Logs().StoreLogs(entries(1, 50, 1)))
	require.NoError(t, l.Logs().DeleteRange(1, 10))
	require.NoError(t, l.Logs().DeleteRange(41, 50))
	require.NoError(t, l.Logs().StoreLogs(entries(41, 45, 2)))
	require.NoError(t, l.Stable().SetUint64([]byte("CurrentTerm"), 2))
	require.NoError(t, l.Stable().Set([]byte("LastVoteCand"), []byte("a")))
	sink := create(t, l, 12)
	_, err := sink.Write([]byte("content"))
	require.NoError(t, err)
	require.NoError(t, sink.Close())
	want := append(entries(11, 40, 1), entries(41, 45, 2)...)
	for range 2 {
		holds(t, l.Logs(), want...)
		require.NoError(t, l.Close())
		l = open(t, dir)
	}
	term, err := l.Stable().GetUint64([]byte("CurrentTerm"))
	require.NoError(t, err)
	require.EqualValues(t, 2, term)
	vote, err := l.Stable().Get([]byte("LastVoteCand"))
	require.NoError(t, err)
	require.Equal(t, "a", string(vote))
	require.Equal(t, "content", content(t, l, sink.ID()))

	n, bytes := l.Size()
	require.EqualValues(t, len(want), n)
	require.Zero(t, bytes, "how large they are is known of those that are stored from now on")
	require.Zero(t, l.Tail(1<<40))
	require.NoError(t, l.Logs().StoreLog(entry(46, 3)))
	require.EqualValues(t, 1, l.Tail(1<<40))
	holds(t, l.Logs(), append(want, entry(46, 3))...)
}

func TestADirectoryThatCannotBeUsedIsReported(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	noSnapshots := filepath.Join(dir, "no snapshots")
	require.NoError(t, os.Mkdir(noSnapshots, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(noSnapshots, "snapshots"), nil, 0o600))
	for name, dir := range map[string]string{
		"a file":                       file,
		"below a file":                 filepath.Join(file, "below"),
		"a file in place of snapshots": noSnapshots,
		"a null byte":                  "\x00",
	} {
		l, err := Open(dir, hclog.NewNullLogger())
		require.Error(t, err, name)
		require.Nil(t, l, name)
		var corrupt *CorruptError
		require.False(t, errors.As(err, &corrupt), "%s: %v", name, err)
		require.NotErrorIs(t, err, ErrInUse, name)
	}
	require.NoError(t, os.Remove(filepath.Join(noSnapshots, "snapshots")))
	open(t, noSnapshots) // nobody has the lock
}
