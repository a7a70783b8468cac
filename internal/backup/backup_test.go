// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/golden"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/state"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// deaf is a state.Sink that ignores everything.
type deaf struct{}

func (deaf) Answer(uint64, uint64, *command.Result) {}
func (deaf) Granted(lease.Lease)                    {}
func (deaf) Ended(int64)                            {}

// sample returns a state with a lease, keys, and history.
func sample(t testing.TB) *state.State {
	t.Helper()
	s := state.New()
	commands := []command.Command{{Grant: &command.Grant{ID: 7, TTL: int64(time.Minute)}}}
	for i := range 5 {
		put := &command.Put{Key: fmt.Sprint("k", i%2), Value: fmt.Sprint("v", i)}
		if i == 3 {
			put.Lease = 7
		}
		commands = append(commands, command.Command{Op: command.Op{Put: put}})
	}
	for i, c := range commands {
		require.NoError(t, s.Apply(uint64(i+2), 3, command.Single(&command.Proposal{Command: c}), deaf{}))
	}
	return s
}

var sampleHead = Head{Cluster: "cluster", ClusterID: 1 << 63, Member: 300, Revision: 6, Taken: time.Unix(1_700_000_000, 5)}

func sampleBackup(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(&b, sampleHead, sample(t).View().Snapshot()))
	return b.Bytes()
}

func TestBackupFormat(t *testing.T) {
	got := sampleBackup(t)
	want := golden.File(t, *update, "backup.golden", got)
	require.Equal(t, want, got, "the format has changed: increment its version, or undo the change")
	b, err := Read(bytes.NewReader(want))
	require.NoError(t, err)
	require.Equal(t, sampleHead, b.Head)
	require.Equal(t, sample(t).View().Hash, b.State.View().Hash)
	require.Equal(t, sha256.Sum256(want), b.Sum)
	require.EqualValues(t, len(want), b.Bytes)
}

func TestEveryDamageOfBackupIsFound(t *testing.T) {
	whole := sampleBackup(t)
	refused := func(b []byte, what string, at int) {
		_, err := Read(bytes.NewReader(b))
		require.Error(t, err, "%s at %d of %d", what, at, len(whole))
	}
	for i := range whole {
		refused(whole[:i], "cut", i)
		for _, mask := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			damaged := bytes.Clone(whole)
			damaged[i] ^= mask
			refused(damaged, "flipped", i)
		}
	}
	refused(append(bytes.Clone(whole), 0), "more", len(whole))
}

func TestHeadWithOtherRevisionIsRejected(t *testing.T) {
	whole := sampleBackup(t)
	head := sampleHead
	head.Revision++
	rest := whole[len(command.AppendHead(nil, format, sampleHead.append)):]
	_, err := Read(bytes.NewReader(append(command.AppendHead(nil, format, head.append), rest...)))
	require.ErrorContains(t, err, "revision 7")
}

func TestReadAndWriteErrorsAreReturned(t *testing.T) {
	broken := errors.New("broken")
	_, err := Read(iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
	for n := range 2 { // the head, and the rest
		require.ErrorIs(t, Write(&failing{n, broken}, sampleHead, sample(t).View().Snapshot()), broken)
	}
}

// A failing is a writer that fails after some calls.
type failing struct {
	left int
	err  error
}

func (f *failing) Write(b []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, f.err
	}
	return len(b), nil
}

func FuzzHead(f *testing.F) {
	f.Add(sampleHead.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h, again Head
		if h.decode(b) != nil {
			return
		}
		require.NoError(t, again.decode(h.append(nil)))
		require.Equal(t, h.append(nil), again.append(nil))
	})
}
