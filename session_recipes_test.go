// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/dsync"
	"github.com/coterie-kv/coterie/mirror"
	"github.com/coterie-kv/coterie/queue"
	"github.com/coterie-kv/coterie/registry"
	"github.com/coterie-kv/coterie/sharedconfig"
	"github.com/coterie-kv/coterie/stm"
)

// Several programs use all recipes at once, while nodes are cut off, paused, crashed and restarted, and
// sessions end in between. No lock has too many holders, and nothing is lost or done twice. In the end no key of
// an ended program is left, and nothing waits for one. COTERIE_SEED repeats a seed.
func TestRecipesUnderFaults(t *testing.T) {
	seed := rand.Uint64()
	if given := os.Getenv("COTERIE_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err)
	}
	faults := 10
	if testing.Short() {
		faults = 4
	}
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		random := rand.New(rand.NewPCG(seed, 0))
		b := &books{t: t, held: map[string]map[context.Context]int64{}, sure: map[string]int64{}, maybe: map[string]int64{}}
		programs := make([]*program, 3)
		for i := range programs {
			programs[i] = startProgram(b, c.Node(i), i, random)
		}
		for range faults {
			time.Sleep(time.Duration(random.IntN(5000)) * time.Millisecond)
			i := random.IntN(3)
			if random.IntN(6) == 0 {
				c.Crash(i)
				programs[i].stop()
				time.Sleep(time.Duration(random.IntN(15_000)) * time.Millisecond)
				c.Restart(i)
				programs[i] = startProgram(b, c.Node(i), i, random)
			} else {
				networkFault(c, random, 3)
			}
			time.Sleep(time.Duration(random.IntN(10_000)) * time.Millisecond)
			c.Heal()
		}
		time.Sleep(30 * time.Second)
		for _, p := range programs {
			p.settled(t)
		}
		for _, p := range programs {
			p.stop()
		}
		time.Sleep(time.Minute) // until the leases expire
		b.balance(c.Leader())
	}, coterietest.WithSeed(seed))
}

// Books record what all programs together hold and have done, and check it.
type books struct {
	t *testing.T

	mu   sync.Mutex
	held map[string]map[context.Context]int64 // by name: the amounts that are held, each while a context lasts
	sure map[string]int64                     // by name: how often a call succeeded
	// maybe counts, by name, how often a call failed.
	maybe map[string]int64
}

// hold records that an amount is held while ctx lasts, and fails the test if more than all is held.
func (b *books) hold(ctx context.Context, name string, some, all int64) (letGo func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[name] == nil {
		b.held[name] = map[context.Context]int64{}
	}
	b.held[name][ctx] = some
	sum := int64(0)
	for ctx, some := range b.held[name] {
		if ctx.Err() == nil {
			sum += some
		}
	}
	if sum > all {
		b.t.Errorf("%d of %d are held of %s", sum, all, name)
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.held[name], ctx)
	}
}

func (b *books) note(name string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.sure[name]++
	} else {
		b.maybe[name]++
	}
}

// balance compares the books with the store, and acquires everything once more.
func (b *books) balance(n *coterie.Node) {
	t := b.t
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for _, prefix := range []string{"lock/", "permits/", "double/in/", "jobs/claim/", "service/"} {
		require.Empty(t, get(t, n, prefix, coterie.WithPrefix()).KVs, "a key of an ended program is left")
	}
	s := session(t, n)
	require.NoError(t, dsync.NewRWMutex(s, "lock").Lock(ctx))
	require.NoError(t, dsync.NewSemaphore(s, "permits", permits).Acquire(ctx, permits))
	q := queue.New(s, "jobs")
	for {
		item, err := q.TryDequeue(ctx)
		if errors.Is(err, queue.ErrEmpty) {
			break
		}
		require.NoError(t, err)
		require.NoError(t, item.Ack(ctx, coterie.OpPut("done/"+item.Name, "")))
	}
	require.Empty(t, get(t, n, "jobs/", coterie.WithPrefix()).KVs)
	done := get(t, n, "done/", coterie.WithPrefix())
	for _, kv := range done.KVs {
		require.EqualValues(t, 1, kv.Version, kv.Key)
	}
	count, err := dsync.NewCounter(n, "counter").Get(ctx)
	require.NoError(t, err)
	v, err := sharedconfig.Open(ctx, n, sharedconfig.Config[int]{Keys: []string{"config"}})
	require.NoError(t, err)
	defer v.Close()
	left, err := strconv.ParseInt(get(t, n, "stm/left").KVs[0].Value, 10, 64)
	require.NoError(t, err)
	for name, is := range map[string]int64{"enqueue": done.Count, "count": count, "config": int64(v.Load()), "stm": left} {
		require.NotZero(t, b.sure[name], name)
		require.GreaterOrEqual(t, is, b.sure[name], name)
		require.LessOrEqual(t, is, b.sure[name]+b.maybe[name], name)
	}
	for _, name := range []string{"write", "read", "acquire", "ack", "round", "mirrored"} {
		require.NotZero(t, b.sure[name], name)
	}
	t.Log("done", b.sure, "failed", b.maybe)
}

// A program is a process on a node that uses every recipe.
type program struct {
	b     *books
	n     *coterie.Node
	ctx   context.Context
	end   context.CancelFunc
	work  sync.WaitGroup
	index *mirror.Index[string]
}

func startProgram(b *books, n *coterie.Node, id int, random *rand.Rand) *program {
	p := &program{b: b, n: n}
	p.ctx, p.end = context.WithCancel(context.WithoutCancel(b.t.Context()))
	decode := func(kv coterie.KeyValue) (string, error) { return kv.Value, nil }
	var err error
	p.index, err = mirror.New(p.ctx, n, "mirrored/", decode)
	require.NoError(b.t, err)
	context.AfterFunc(p.ctx, p.index.Close)
	p.work.Go(func() {
		self := registry.Instance{ID: fmt.Sprint(id), Addr: fmt.Sprintf("10.0.0.%d:1", id)}
		if r, err := registry.Register(p.ctx, n, "service", self, registry.WithTTL(ttl)); err == nil {
			context.AfterFunc(p.ctx, r.Close)
		}
	})
	for _, work := range []func(*worker) error{
		(*worker).write, (*worker).read, (*worker).read, (*worker).acquire, (*worker).acquire, (*worker).enqueue,
		(*worker).dequeue, (*worker).dequeue, (*worker).change, (*worker).meet,
	} {
		w := &worker{program: p, random: rand.New(rand.NewPCG(random.Uint64(), 1))}
		p.work.Go(func() { w.run(work) })
	}
	return p
}

// stop ends the program as a kill ends a process: its sessions are not closed.
func (p *program) stop() {
	p.end()
	p.work.Wait()
}

// settled checks the state of the program after all faults have ended.
func (p *program) settled(t *testing.T) {
	instances, err := registry.Resolve(t.Context(), p.n, "service")
	require.NoError(t, err)
	require.Len(t, instances, 3)
	stored := get(t, p.n, "mirrored/", coterie.WithPrefix())
	require.NoError(t, p.index.WaitRevision(t.Context(), stored.Revision))
	for _, kv := range stored.KVs {
		require.GreaterOrEqual(t, p.index.Snapshot().Entry(kv.Key).Revision, kv.ModRevision)
	}
}

const (
	ttl     = 10 * time.Second
	permits = 5
)

// A worker repeats one kind of work, with sessions that end at random times.
type worker struct {
	*program
	random *rand.Rand
	s      *coterie.Session
	ctx    context.Context // of the present piece of work; it may end at any moment
	jobs   int
}

func (w *worker) run(work func(*worker) error) {
	for w.program.ctx.Err() == nil {
		if w.s == nil || w.s.Err() != nil || w.random.IntN(40) == 0 {
			w.renew()
		}
		if w.s != nil {
			ctx, cancel := context.WithTimeout(w.program.ctx, w.while(10*time.Second))
			w.ctx = ctx
			_ = work(w)
			cancel()
		}
		w.pause()
	}
	if w.s != nil {
		w.s.Orphan()
	}
}

// renew ends the session with all that it has, by Orphan or by Close, and opens another.
func (w *worker) renew() {
	if w.s != nil {
		w.s.Orphan()
		if w.random.IntN(2) == 0 {
			_ = w.s.Close()
		}
	}
	w.s, _ = coterie.NewSession(w.program.ctx, w.n, coterie.WithTTL(ttl))
}

func (w *worker) while(most time.Duration) time.Duration {
	return time.Duration(w.random.Int64N(int64(most)))
}

func (w *worker) pause() {
	select {
	case <-time.After(w.while(time.Second)):
	case <-w.program.ctx.Done():
	}
}

// A lock is an object of dsync with the calls that acquire and release it.
type lock struct {
	object interface {
		WorkContext(ctx context.Context) (context.Context, context.CancelFunc)
	}
	acquire, try, release func(context.Context) error
}

// hold acquires a lock, or tries to, keeps it for a while, and then releases it or, seldom, ends its session.
func (w *worker) hold(note string, l lock, name string, some, all int64) error {
	acquire := l.acquire
	if w.random.IntN(4) == 0 {
		acquire = l.try
	}
	err := acquire(w.ctx)
	w.b.note(note, err)
	if err != nil {
		return err
	}
	ctx, cancel := l.object.WorkContext(w.program.ctx)
	defer cancel()
	letGo := w.b.hold(ctx, name, some, all)
	w.pause()
	letGo()
	if w.random.IntN(20) == 0 || l.release(w.ctx) != nil {
		w.s.Orphan() // the lock goes with the session
	}
	return nil
}

const readers = 1000 // more than there are

func (w *worker) write() error {
	m := dsync.NewRWMutex(w.s, "lock")
	return w.hold("write", lock{m, m.Lock, m.TryLock, m.Unlock}, "lock", readers, readers)
}

func (w *worker) read() error {
	m := dsync.NewRWMutex(w.s, "lock")
	return w.hold("read", lock{m, m.RLock, m.TryRLock, m.RUnlock}, "lock", 1, readers)
}

func (w *worker) acquire() error {
	m, some := dsync.NewSemaphore(w.s, "permits", permits), 1+w.random.Int64N(permits)
	acquire := func(ctx context.Context) error { return m.Acquire(ctx, some) }
	try := func(ctx context.Context) error { return m.TryAcquire(ctx, some) }
	return w.hold("acquire", lock{m, acquire, try, m.Release}, "permits", some, permits)
}

func (w *worker) enqueue() error {
	w.jobs++
	name := fmt.Sprintf("%v-%d", w.s.Lease(), w.jobs)
	err := queue.New(w.s, "jobs").Enqueue(w.ctx, name, queue.WithName(name), queue.WithPriority(int16(w.random.IntN(3))))
	w.b.note("enqueue", err)
	return err
}

func (w *worker) dequeue() error {
	item, err := queue.New(w.s, "jobs").Dequeue(w.ctx)
	if err != nil {
		return err
	}
	ctx, cancel := item.WorkContext(w.program.ctx)
	defer cancel()
	letGo := w.b.hold(ctx, item.Name, 1, 1)
	w.pause()
	letGo()
	switch w.random.IntN(5) {
	case 0:
		return item.Nack(w.ctx)
	case 1:
		w.s.Orphan()
		return nil
	}
	err = item.Ack(w.ctx, coterie.OpPut("done/"+item.Name, ""))
	w.b.note("ack", err)
	return err
}

// change changes state without a holder: a counter, two keys in a transaction, a configuration, a mirror.
func (w *worker) change() error {
	_, err := dsync.NewCounter(w.n, "counter").Add(w.ctx, 1)
	w.b.note("count", err)
	_, err = stm.Run(w.ctx, w.n, func(tx *stm.Tx) error {
		left, _, err := tx.Get("stm/left")
		right, _, err2 := tx.Get("stm/right")
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if left != right {
			w.b.t.Errorf("a transaction reads %q and %q", left, right)
		}
		sum, _ := strconv.Atoi(left)
		next := strconv.Itoa(sum + 1)
		return errors.Join(tx.Put("stm/left", next), tx.Put("stm/right", next))
	})
	w.b.note("stm", err)
	v, err := sharedconfig.Open(w.ctx, w.n, sharedconfig.Config[int]{Keys: []string{"config"}})
	if err == nil {
		_, err = v.Update(w.ctx, func(is int) (int, error) { return is + 1, nil })
		w.b.note("config", err)
		v.Close()
	}
	key := fmt.Sprint("mirrored/", w.random.IntN(50))
	if w.random.IntN(3) == 0 {
		_, err = w.n.Delete(w.ctx, key)
	} else {
		_, err = w.n.Put(w.ctx, key, strings.Repeat("x", w.random.IntN(100)))
	}
	w.b.note("mirrored", err)
	return err
}

// meet takes part in a round of two of the three programs.
func (w *worker) meet() error {
	round, err := dsync.NewDoubleBarrier(w.s, "double", 2).Enter(w.ctx)
	if err != nil {
		return err
	}
	w.pause()
	err = round.Leave(w.ctx)
	w.b.note("round", err)
	if err != nil {
		w.s.Orphan()
	}
	return err
}
