// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/memnet"
)

// atOnce is how long a call may continue after its context has ended. In virtual time, only waiting takes time.
const atOnce = 10 * time.Millisecond

// lastError returns the error that a sequence ends with.
func lastError[T any](seq func(func(T, error) bool)) (last error) {
	for _, err := range seq {
		last = err
	}
	return last
}

// These are the calls that TestContextEndsACallAtOnce does not make. They wait on a node that is cut off and knows no
// leader. So no call is ever sent, and none may have an effect.
func TestContextEndsEveryCall(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		ctx, cancel := context.WithCancelCause(t.Context())
		s := session(t, n, coterie.WithTTL(time.Hour))
		locked, campaigner := coterie.NewMutex(s, "locked"), coterie.NewElection(s, "led")
		require.NoError(t, locked.Lock(t.Context()))
		require.NoError(t, campaigner.Campaign(t.Context(), "a"))
		put(t, n, "k", "v")
		lease := grant(t, n, time.Hour)
		body := func(context.Context, int64) error {
			t.Error("fn runs without a quorum")
			return nil
		}
		calls := map[string]func() error{
			"delete":           func() error { _, err := n.Delete(ctx, "k"); return err },
			"revoke":           func() error { return errOf(n.Revoke(ctx, lease)) },
			"keep alive once":  func() error { _, err := n.KeepAliveOnce(ctx, lease); return err },
			"range":            func() error { return lastError(n.Range(ctx, "k")) },
			"range of a past":  func() error { return lastError(n.Range(ctx, "k", coterie.WithRevision(2))) },
			"read in a txn":    func() error { _, err := n.Txn(ctx).Then(coterie.OpGet("k")).Commit(); return err },
			"follow":           func() error { return lastError(coterie.Follow(ctx, n, "k")) },
			"observe":          func() error { return lastError(campaigner.Observe(ctx)) },
			"elected":          func() error { _, err := campaigner.Leader(ctx); return err },
			"campaign":         func() error { return coterie.NewElection(s, "another").Campaign(ctx, "b") },
			"campaign again":   func() error { return campaigner.Campaign(ctx, "b") },
			"proclaim":         func() error { return campaigner.Proclaim(ctx, "c") },
			"resign":           func() error { return campaigner.Resign(ctx) },
			"lock":             func() error { return coterie.NewMutex(s, "locked").Lock(ctx) },
			"lock what is not": func() error { return coterie.NewMutex(s, "free").Lock(ctx) },
			"try to lock":      func() error { return coterie.NewMutex(s, "free").TryLock(ctx) },
			"do":               func() error { return coterie.NewMutex(s, "free").Do(ctx, body) },
			"unlock":           func() error { return locked.Unlock(ctx) },
			"a session":        func() error { _, err := coterie.NewSession(ctx, n); return err },
			"a session that goes on": func() error {
				_, err := coterie.NewSession(ctx, n, coterie.WithExistingLease(lease))
				return err
			},
			"run with lock":   func() error { return coterie.RunWithLock(ctx, n, "another", body) },
			"resume election": func() error { _, err := coterie.ResumeElection(ctx, s, "led"); return err },
			"run as leader":   func() error { return coterie.RunAsLeader(ctx, n, "another", "b", body) },
			"watch": func() (last error) {
				for r := range n.WatchChan(ctx, "k") {
					last = r.Err
				}
				return last
			},
			"leadership": func() error {
				for range n.ClusterLeaders(ctx) {
				}
				return context.Cause(ctx) // this call returns no error
			},
		}
		c.Pause(c.Index(n))
		time.Sleep(30 * time.Second)
		require.Zero(t, n.Status().Leader)
		type end struct {
			name string
			err  error
			at   time.Time
		}
		ends := make(chan end, len(calls))
		for name, call := range calls {
			go func() {
				err := call()
				ends <- end{name, err, time.Now()}
			}()
		}
		time.Sleep(30 * time.Second)
		require.Empty(t, ends, "the calls wait for a quorum")
		reason, begin := errors.New("enough"), time.Now()
		cancel(reason)
		for range calls {
			e := <-ends
			require.ErrorIs(t, e.err, reason, e.name)
			require.NotErrorIs(t, e.err, coterie.ErrMaybeApplied, e.name)
			require.LessOrEqual(t, e.at.Sub(begin), atOnce, e.name)
		}
		// No call has had an effect, or will have one. The key, the lease, the lock and the leadership are still
		// there, and the abandoned calls have left nothing behind.
		c.Heal()
		require.NoError(t, n.Ready(t.Context()))
		time.Sleep(time.Minute)
		require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
		_, err := n.TimeToLive(t.Context(), lease)
		require.NoError(t, err)
		require.Len(t, get(t, n, "locked/", coterie.WithPrefix()).KVs, 1)
		led := get(t, n, "led/", coterie.WithPrefix()).KVs
		require.Len(t, led, 1)
		require.Equal(t, "a", led[0].Value)
		for _, prefix := range []string{"free/", "another/"} {
			require.Empty(t, get(t, n, prefix, coterie.WithPrefix()).KVs, prefix)
		}
		require.NoError(t, locked.Unlock(t.Context()))
		require.NoError(t, campaigner.Resign(t.Context()))
	})
}

// A write that was in flight when its context ended may have been applied. Its error says so.
func TestContextEndsSentWrite(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		s := session(t, n, coterie.WithTTL(time.Hour))
		m, e := coterie.NewMutex(s, "lock"), coterie.NewElection(s, "election")
		require.NoError(t, m.Lock(t.Context()))
		require.NoError(t, e.Campaign(t.Context(), "a"))
		lease := grant(t, n, time.Hour)
		for name, write := range map[string]func(ctx context.Context) error{
			"put":    func(ctx context.Context) error { _, err := n.Put(ctx, "k", "v"); return err },
			"delete": func(ctx context.Context) error { _, err := n.Delete(ctx, "k"); return err },
			"txn": func(ctx context.Context) error {
				_, err := n.Txn(ctx).Then(coterie.OpPut("k", "v")).Commit()
				return err
			},
			"grant":    func(ctx context.Context) error { _, err := n.Grant(ctx, time.Minute); return err },
			"revoke":   func(ctx context.Context) error { return errOf(n.Revoke(ctx, lease)) },
			"compact":  func(ctx context.Context) error { return errOf(n.Compact(ctx, 1)) },
			"proclaim": func(ctx context.Context) error { return e.Proclaim(ctx, "b") },
			"resign":   func(ctx context.Context) error { return e.Resign(ctx) },
			"unlock":   func(ctx context.Context) error { return m.Unlock(ctx) },
			"session":  func(ctx context.Context) error { _, err := coterie.NewSession(ctx, n); return err },
		} {
			require.NoError(t, n.Ready(t.Context()))
			c.Pause(c.Index(n))
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- write(ctx) }()
			time.Sleep(100 * time.Millisecond) // the node still believes that its leader leads
			reason, begin := errors.New("enough"), time.Now()
			cancel(reason)
			err := <-ended
			require.LessOrEqual(t, time.Since(begin), atOnce, name)
			require.ErrorIs(t, err, reason, name)
			require.ErrorIs(t, err, coterie.ErrMaybeApplied, name)
			require.NotErrorIs(t, err, coterie.ErrNoLeader, name)
			c.Heal()
			time.Sleep(10 * time.Second)
		}
	})
}

// Check and Hash do not wait for other nodes, but may take long.
func TestContextEndsALongReadOfTheStore(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxTxnOps, c.MaxRequestBytes = 20_000, 64<<20 })
	var ops []coterie.Op
	for i := range 20_000 {
		ops = append(ops, coterie.OpPut(fmt.Sprintf("k%05d", i), ""))
	}
	commit(t, n.Txn(t.Context()).Then(ops...))
	for name, look := range map[string]func(ctx context.Context) error{
		"check": n.Check,
		"hash":  func(ctx context.Context) error { _, err := n.Hash(ctx, 0); return err },
	} {
		// The result may be there before the call checks its context, but not ten times in a row.
		var err error
		for range 10 {
			reason := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			if err = look(&endsWhenWaitedFor{Context: ctx, end: func() { cancel(reason) }}); err != nil {
				require.ErrorIs(t, err, reason, name)
				break
			}
		}
		require.Error(t, err, name)
	}
}

// endsWhenWaitedFor is a context that ends as soon as a goroutine waits for its end.
type endsWhenWaitedFor struct {
	context.Context
	end func()
}

func (c *endsWhenWaitedFor) Done() <-chan struct{} {
	c.end()
	return c.Context.Done()
}

// A deafNetwork opens ports, but never completes a connection.
type deafNetwork struct{ coterie.Network }

func (deafNetwork) Dial(ctx context.Context, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestContextEndsOpenCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &countingPorts{Network: deafNetwork{coterie.NewMemoryNetwork()}}
		ctx, cancel := context.WithCancelCause(t.Context())
		opened := make(chan error, 1)
		go func() {
			_, err := coterie.OpenCluster(ctx, 3, coterie.Config{InMemory: true, Addr: "host:0", Network: network})
			opened <- err
		}()
		time.Sleep(time.Minute)
		require.Equal(t, 3, network.open())
		reason, begin := errors.New("enough"), time.Now()
		cancel(reason)
		err := <-opened
		require.LessOrEqual(t, time.Since(begin), atOnce)
		require.ErrorIs(t, err, reason)
		require.ErrorIs(t, err, coterie.ErrNoLeader)
		require.Zero(t, network.open(), "no listener is left open")
	})
}

func TestContextEndsWaitForLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New()
		c, err := coterie.OpenCluster(t.Context(), 3, coterie.Config{InMemory: true, Addr: "host:0", Network: network})
		require.NoError(t, err)
		defer c.Close()
		network.Block("localhost", "host") // they dial without a name
		time.Sleep(time.Minute)
		ctx, cancel := context.WithCancelCause(t.Context())
		found := make(chan error, 1)
		go func() { _, err := c.Leader(ctx); found <- err }()
		time.Sleep(time.Minute)
		reason, begin := errors.New("enough"), time.Now()
		cancel(reason)
		err = <-found
		require.LessOrEqual(t, time.Since(begin), atOnce)
		require.ErrorIs(t, err, reason)
		require.ErrorIs(t, err, coterie.ErrNoLeader)
		network.Heal()
		_, err = c.Leader(t.Context())
		require.NoError(t, err)
	})
}

// countingPorts is a network that knows how many of its listeners are open.
type countingPorts struct {
	coterie.Network
	mu    sync.Mutex
	ports map[*countedPort]bool
}

type countedPort struct {
	net.Listener
	network *countingPorts
}

func (n *countingPorts) Listen(addr string) (net.Listener, error) {
	l, err := n.Network.Listen(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports == nil {
		n.ports = map[*countedPort]bool{}
	}
	p := &countedPort{l, n}
	n.ports[p] = true
	return p, nil
}

func (n *countingPorts) open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.ports)
}

func (p *countedPort) Close() error {
	p.network.mu.Lock()
	delete(p.network.ports, p)
	p.network.mu.Unlock()
	return p.Listener.Close()
}
