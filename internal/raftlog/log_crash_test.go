// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A witness knows the promises that a node has made, and the data that it may have.
type witness struct {
	identified bool
	voted      int           // number of acknowledged votes
	tried      int           // number of votes begun
	logs       [][]*raft.Log // the log after each change, beginning with the empty one
	acked      int           // the newest of logs that is known to be durable
	snapshots  []uint64      // begun
	snapshot   uint64        // the newest acknowledged snapshot
	applied    uint64        // the newest index passed to Applied
}

var crashIdentity = Identity{Cluster: 1, Member: 2, Incarnation: 3}

// votesCast are the votes that the workload saves in turn, each a term and a candidate.
var votesCast = []vote{
	{term: 1}, {term: 2}, {2, 2, []byte("a")}, {term: 3, votedIn: 2, candidate: []byte("a")}, {3, 3, []byte("b")},
	{term: 5, votedIn: 3, candidate: []byte("b")}, {5, 5, []byte("a")},
}

var errStopped = errors.New("the disk stopped")

// A workload drives a node's log from its first start to its end. It stops at the first error.
type workload struct {
	w   *witness
	l   *Log
	log []*raft.Log
}

func (x *workload) changed() {
	x.w.logs = append(x.w.logs, append([]*raft.Log(nil), x.log...))
}

func (x *workload) append(logs ...*raft.Log) error {
	x.log = append(x.log, logs...)
	x.changed()
	return x.l.Logs().StoreLogs(logs)
}

func (x *workload) settle() error {
	n := len(x.w.logs) - 1
	if err := x.l.Await(context.Background(), x.l.Position()); err != nil {
		return err
	}
	x.w.acked = n
	return nil
}

func (x *workload) truncate(low uint64) error {
	x.log = append([]*raft.Log(nil), x.log[:low-x.log[0].Index]...)
	high := x.w.logs[len(x.w.logs)-1]
	x.changed()
	return x.l.Logs().DeleteRange(low, high[len(high)-1].Index)
}

func (x *workload) compact(high uint64) error {
	x.log = append([]*raft.Log(nil), x.log[high+1-x.log[0].Index:]...)
	x.changed()
	first, _ := x.l.Logs().FirstIndex() // the log may keep one more entry
	return x.l.Logs().DeleteRange(first, high)
}

// vote saves the next vote. After a failure it waits for the end.
func (x *workload) vote() error {
	next := votesCast[x.w.tried]
	x.w.tried++
	done := make(chan error, 1)
	go func() {
		if next.votedIn == next.term {
			done <- errors.Join(x.l.Stable().SetUint64(keyVotedIn, next.term), x.l.Stable().Set(keyCandidate, next.candidate))
			return
		}
		done <- x.l.Stable().SetUint64(keyTerm, next.term)
	}()
	synctest.Wait()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
		x.w.voted = x.w.tried
		return nil
	default:
		x.l.End()
		<-done
		return errStopped
	}
}

func (x *workload) snapshot(t *testing.T, index, term uint64) error {
	x.w.snapshots = append(x.w.snapshots, index)
	sink, err := x.l.Snapshots().Create(1, index, term, configuration, 1, nil)
	if err != nil {
		return err
	}
	if _, err := sink.Write(body(t, fmt.Sprint("state ", index))); err != nil {
		return err
	}
	if err := sink.Close(); err != nil {
		return err
	}
	x.w.snapshot = index
	return nil
}

func (x *workload) applied(index uint64) error {
	x.w.applied = index
	x.l.Applied(index)
	time.Sleep(2 * recordAfter)
	return x.l.Condition().Err
}

// run runs a node twice. It returns the first error.
func (x *workload) run(t *testing.T, files vfs.FS) (err error) {
	x.w.logs = [][]*raft.Log{nil}
	for _, life := range [][]func() error{x.first(t), x.second(t)} {
		if x.l, err = openWith(files, home, false, smallSegment); err != nil {
			return err
		}
		for _, step := range life {
			if err = step(); err != nil {
				_ = x.l.Close(context.Background()) // joins the writer
				return err
			}
		}
		if err = x.l.Close(context.Background()); err != nil {
			return err
		}
		x.w.acked = len(x.w.logs) - 1
	}
	return nil
}

func (x *workload) first(t *testing.T) []func() error {
	members := &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configuration)}
	return []func() error{
		func() error {
			err := x.l.Identify(crashIdentity)
			x.w.identified = err == nil
			return err
		},
		x.vote,
		func() error { return x.append(members) },
		x.settle,
		x.vote, x.vote,
		func() error { return x.append(storagetest.Entries(2, 9, 2)...) },
		func() error { return x.append(storagetest.Entries(10, 12, 2)...) },
		x.settle,
		func() error { return x.append(storagetest.Entries(13, 20, 2)...) },
		x.vote, x.vote,
		func() error { return x.truncate(11) }, // possibly before they are durable
		func() error { return x.append(storagetest.Entries(11, 15, 3)...) },
		x.settle,
		func() error { return x.truncate(14) },
		x.settle,
		func() error { return x.append(storagetest.Entries(14, 15, 3)...) },
		func() error { return x.applied(12) },
		func() error { return x.append(sized(16, smallSegment)) },
		x.settle,
		func() error { return x.append(sized(17, smallSegment)) },
		x.settle,
		func() error { return x.append(storagetest.Entries(18, 22, 3)...) },
		x.settle,
		func() error { return x.applied(21) },
		func() error { return x.snapshot(t, 20, 3) },
		func() error { return x.compact(16) },
		func() error { return x.append(storagetest.Entries(23, 24, 3)...) },
	}
}

func (x *workload) second(t *testing.T) []func() error {
	return []func() error{
		func() error {
			// Compacted entries may be back if their segment is still there.
			got, err := tail(x.l)
			if err == nil {
				older := got[:x.log[0].Index-got[0].Index]
				x.log = append(older[:len(older):len(older)], x.log...)
			}
			return err
		},
		x.vote, x.vote,
		func() error { return x.append(storagetest.Entries(25, 30, 5)...) },
		x.settle,
		func() error { return x.snapshot(t, 60, 5) }, // a snapshot from the leader
		func() error {
			x.w.applied = 60
			x.l.Applied(60)
			x.log = nil
			return x.append(storagetest.Entries(61, 62, 5)...)
		},
		x.settle,
		func() error { return x.compact(61) },
		func() error { return x.append(sized(63, largeData), sized(64, smallSegment)) },
		x.settle,
		func() error { return x.snapshot(t, 64, 5) },
		func() error { return x.compact(64) },
		func() error { return x.append(storagetest.Entries(65, 66, 5)...) },
		func() error { return x.applied(65) },
	}
}

// check opens the remaining files and compares them with the promises.
func (w *witness) check(files vfs.FS) error {
	l, err := openWith(files, home, false, smallSegment)
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	for _, check := range []func(*Log) error{w.identity, w.votes, w.entries, w.usable} {
		if err := check(l); err != nil {
			return errors.Join(err, l.Close(context.Background()))
		}
	}
	want, err := tail(l)
	if err != nil {
		return err
	}
	if err := l.Close(context.Background()); err != nil {
		return err
	}
	if l, err = openWith(files, home, false, smallSegment); err != nil {
		return fmt.Errorf("opening again: %w", err)
	}
	got, err := tail(l)
	if err == nil && !reflect.DeepEqual(want, got) {
		err = fmt.Errorf("it had %v, and has %v when opened again", span(want), span(got))
	}
	return errors.Join(err, l.Close(context.Background()))
}

func (w *witness) identity(l *Log) error {
	if id, known := l.Identity(); known && id != crashIdentity || w.identified && !known {
		return fmt.Errorf("identity %v %v", id, known)
	}
	return nil
}

func (w *witness) votes(l *Log) error {
	for n := w.voted; n <= w.tried; n++ {
		want := vote{}
		if n > 0 {
			want = votesCast[n-1]
		}
		if reflect.DeepEqual(want, l.votes.vote) {
			return nil
		}
	}
	return fmt.Errorf("the vote is %v after %d of %d", l.votes.vote, w.voted, w.tried)
}

// tail returns all entries.
func tail(l *Log) (logs []*raft.Log, err error) {
	first, _ := l.Logs().FirstIndex()
	last, _ := l.Logs().LastIndex()
	for i := first; i != 0 && i <= last; i++ {
		e, err := l.Entry(i)
		if err != nil {
			return nil, err
		}
		own := *e
		if !own.AppendedAt.IsZero() {
			own.AppendedAt = own.AppendedAt.UTC()
		}
		logs = append(logs, &own)
	}
	return logs, nil
}

func (w *witness) entries(l *Log) error {
	got, err := tail(l)
	if err != nil {
		return err
	}
	metas, err := l.Snapshots().List()
	if err != nil {
		return err
	}
	newest := uint64(0)
	if len(metas) > 0 {
		newest = metas[0].Index
	}
	if newest < w.snapshot {
		return fmt.Errorf("snapshot %d is lost: there is %d", w.snapshot, newest)
	}
	last := span(got)[1]
	if recorded := l.Recorded(); recorded > max(last, newest) || recorded > w.applied {
		return fmt.Errorf("%d was recorded as applied, there is %d and a snapshot of %d", recorded, last, newest)
	}
	if l.Durable() < max(last, newest) {
		return fmt.Errorf("durable is %d, there is %d and a snapshot of %d", l.Durable(), last, newest)
	}
	for _, want := range w.logs[w.acked:] {
		if holdsAs(got, want, newest) {
			return nil
		}
	}
	return fmt.Errorf("there are entries %v, snapshot %d, after change %d of %d: %v",
		span(got), newest, w.acked, len(w.logs), span(w.logs[w.acked]))
}

// holdsAs reports whether got is the log want. It may have more entries at its beginning, and it may lack
// entries that the snapshot covers.
func holdsAs(got, want []*raft.Log, snapshot uint64) bool {
	if len(got) == 0 {
		return span(want)[1] <= snapshot
	}
	if len(want) == 0 {
		return span(got)[1] <= snapshot
	}
	if got[0].Index > want[0].Index || span(got)[1] != span(want)[1] {
		return false
	}
	return reflect.DeepEqual(want, got[want[0].Index-got[0].Index:])
}

func (w *witness) usable(l *Log) error {
	next := l.Durable() + 1
	if l.votes.term == 0 {
		if err := l.Stable().SetUint64(keyTerm, 1); err != nil {
			return err
		}
	}
	for i := range uint64(3) {
		if err := l.Logs().StoreLog(storagetest.Entry(next+i, 9)); err != nil {
			return err
		}
	}
	if err := l.Await(context.Background(), l.Position()); err != nil {
		return err
	}
	if l.Durable() != next+2 {
		return fmt.Errorf("durable is %d after %d", l.Durable(), next+2)
	}
	return nil
}

// trial runs the workload on a disk that stops after n changes, ends it by calling end, and checks the
// remaining files.
func trial(t *testing.T, n int, lie bool, end func(disk *vfs.Memory)) (stopped bool, err error) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewForgetful()
		disk.Lie(lie)
		disk.FreezeAfter(n)
		x := &workload{w: &witness{}}
		stopped = x.run(t, disk.Mount()) != nil
		end(disk)
		disk.Lie(false)
		err = x.w.check(disk.Mount())
	})
	return stopped, err
}

// steps runs fn for each number of changes of the workload, up to all of them.
func steps(t *testing.T, fn func(n int) (stopped bool)) {
	t.Helper()
	for n := 0; ; n++ {
		require.Less(t, n, 1000)
		if !fn(n) {
			t.Logf("%d changes", n)
			require.Greater(t, n, 60)
			return
		}
	}
}

func TestCrashAtEveryStepKeepsPromises(t *testing.T) {
	steps(t, func(n int) bool {
		stopped, err := trial(t, n, false, func(disk *vfs.Memory) { disk.Crash(nil) })
		require.NoError(t, err, "after %d changes", n)
		return stopped
	})
}

func TestPartialCrashAtEveryStepKeepsPromises(t *testing.T) {
	r := random(t)
	steps(t, func(n int) (stopped bool) {
		for range often(3) {
			a, b := r.Uint64(), r.Uint64()
			var err error
			stopped, err = trial(t, n, false, func(disk *vfs.Memory) { disk.Crash(rand.New(rand.NewPCG(a, b))) })
			require.NoError(t, err, "after %d changes, seed %d, %d", n, a, b)
		}
		return stopped
	})
}

func TestKillAtEveryStepKeepsPromises(t *testing.T) {
	steps(t, func(n int) bool {
		stopped, err := trial(t, n, false, func(disk *vfs.Memory) { disk.Kill() })
		require.NoError(t, err, "after %d changes", n)
		return stopped
	})
}

// The next process may find data that were written but never synced. It relies on them at once.
func TestOpenSyncsDataOfKilledProcess(t *testing.T) {
	r := random(t)
	steps(t, func(n int) (stopped bool) {
		for i := range 2 {
			var random *rand.Rand
			if i > 0 {
				random = r
			}
			synctest.Test(t, func(t *testing.T) {
				disk := vfs.NewForgetful()
				disk.FreezeAfter(n)
				x := &workload{w: &witness{}}
				stopped = x.run(t, disk.Mount()) != nil
				disk.Kill()
				l, err := openWith(disk.Mount(), home, false, smallSegment)
				require.NoError(t, err, "after %d changes", n)
				id, known := l.Identity()
				vote, durable := l.votes.vote, l.Durable()
				logs, err := tail(l)
				require.NoError(t, err)
				require.NoError(t, l.Await(t.Context(), l.Position()))
				disk.Crash(random)
				_ = l.Close(t.Context())
				l, err = openWith(disk.Mount(), home, false, smallSegment)
				require.NoError(t, err, "after %d changes", n)
				gotID, gotKnown := l.Identity()
				require.Equal(t, []any{id, known}, []any{gotID, gotKnown}, "after %d changes", n)
				require.Equal(t, vote, l.votes.vote, "after %d changes", n)
				require.Equal(t, durable, l.Durable(), "after %d changes", n)
				got, err := tail(l)
				require.NoError(t, err)
				require.Equal(t, logs, got, "after %d changes", n)
				finish(t, l)
			})
		}
		return stopped
	})
}

// This is the control: on a disk with syncs that do nothing, the same tests must find losses.
func TestLyingDiskIsDetected(t *testing.T) {
	found := 0
	steps(t, func(n int) bool {
		stopped, err := trial(t, n, true, func(disk *vfs.Memory) { disk.Crash(nil) })
		if err != nil {
			found++
		}
		return stopped
	})
	t.Logf("%d were found", found)
	require.Greater(t, found, 30)
}

// random returns steps that raft may take in any order. The last one closes the log.
func (x *workload) random(t *testing.T, r *rand.Rand, term uint64) (life []func() error) {
	last := func() uint64 { return max(x.w.snapshot, span(x.log)[1]) }
	settled := func() uint64 { return max(x.w.snapshot, x.w.applied) } // never truncated
	for range 10 + r.IntN(20) {
		n := 1 + r.Uint64N(5)
		switch r.IntN(8) {
		case 0:
			life = append(life, func() error {
				large := sized(last()+1, r.IntN(2*smallSegment)+r.IntN(4)/3*largeData)
				large.Term = term
				return x.append(large)
			})
		case 1:
			life = append(life, func() error {
				if last() <= settled() || len(x.log) == 0 {
					return nil
				}
				low := settled() + 1 + r.Uint64N(last()-settled())
				return x.truncate(max(low, x.log[0].Index))
			})
		case 2:
			life = append(life, x.settle)
		case 3:
			life = append(life, x.settle, func() error {
				if last() == settled() {
					return nil
				}
				return x.applied(settled() + 1 + r.Uint64N(last()-settled()))
			})
		case 4:
			life = append(life, func() error {
				if x.w.applied <= x.w.snapshot {
					return nil
				}
				return x.snapshot(t, x.w.applied, x.log[x.w.applied-x.log[0].Index].Term)
			}, func() error {
				if len(x.log) == 0 || x.log[0].Index > x.w.snapshot {
					return nil
				}
				return x.compact(x.log[0].Index + r.Uint64N(x.w.snapshot-x.log[0].Index+1))
			})
		case 5:
			if x.w.tried < len(votesCast) && r.IntN(3) == 0 {
				life = append(life, func() error {
					if x.w.tried == len(votesCast) {
						return nil
					}
					return x.vote()
				})
			}
		case 6:
			if r.IntN(4) == 0 { // a snapshot from the leader
				life = append(life, func() error { return x.snapshot(t, last()+n, term) }, func() error {
					x.w.applied = x.w.snapshot
					x.l.Applied(x.w.snapshot)
					x.log = nil
					return x.append(storagetest.Entries(x.w.snapshot+1, x.w.snapshot+n, term)...)
				})
			}
		default:
			life = append(life, func() error { return x.append(storagetest.Entries(last()+1, last()+n, term)...) })
		}
	}
	return life
}

func TestCrashInRandomWorkloadKeepsPromises(t *testing.T) {
	r := random(t)
	for range often(300) {
		a, b := r.Uint64(), r.Uint64()
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(a, b))
			disk := vfs.NewForgetful()
			disk.FreezeAfter(10 + r.IntN(150))
			x := &workload{w: &witness{logs: [][]*raft.Log{nil}}}
			files := disk.Mount()
			for life := range uint64(3) {
				if x.live(t, r, files, life+1) != nil {
					break
				}
			}
			switch r.IntN(3) {
			case 0:
				disk.Kill()
			case 1:
				disk.Crash(nil)
			default:
				disk.Crash(r)
			}
			require.NoError(t, x.w.check(disk.Mount()), "seed %d, %d", a, b)
		})
	}
}

// live opens a log that earlier calls have used, runs random steps, and closes it.
func (x *workload) live(t *testing.T, r *rand.Rand, files vfs.FS, term uint64) (err error) {
	if x.l, err = openWith(files, home, false, smallSegment); err != nil {
		return err
	}
	steps := append([]func() error{
		func() error {
			got, err := tail(x.l)
			if err == nil && len(x.w.logs) > 1 {
				x.log = got // including compacted entries
				x.changed()
			}
			return err
		},
		func() error {
			if x.w.tried > 0 {
				return nil
			}
			return x.vote()
		},
	}, x.random(t, r, term)...)
	for _, step := range steps {
		if err = step(); err != nil {
			_ = x.l.Close(context.Background())
			return err
		}
	}
	if err = x.l.Close(context.Background()); err == nil {
		x.w.acked = len(x.w.logs) - 1
	}
	return err
}
