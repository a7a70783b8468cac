// SPDX-License-Identifier: Apache-2.0

//go:build unix

package coterie_test

import (
	"context"
	"flag"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// To run the test at the size of a deployment, over TCP and in real time:
//
//	go test -run TestManySessionsLive -sessions 20000 -sessions.time 5m -sessions.tcp -v .
var (
	manySessions = flag.Int("sessions", 400, "number of sessions on each of two followers")
	sessionsTime = flag.Duration("sessions.time", 45*time.Second, "how long to keep the sessions")
	sessionsTCP  = flag.Bool("sessions.tcp", false, "use TCP and real time instead of virtual time")
)

// However many sessions a healthy cluster has, they live on, even when the leader is closed or killed. Nothing
// else changes the term.
func TestManySessionsLive(t *testing.T) {
	if !*sessionsTCP {
		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
			for i := range 6 {
				c.Delay(i%3, (i+1+i/3)%3, 5*time.Millisecond) // a handshake takes time
			}
			keepManySessions(t, c, c.Crash)
		})
		return
	}
	networks := make([]*mortalNetwork, 3)
	c := coterietest.NewCluster(t, 3, coterietest.WithTCP(), coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		networks[i] = newMortalNetwork()
		cfg.Network = networks[i]
	}))
	keepManySessions(t, c, func(i int) {
		networks[i].die()
		c.Stop(i)
		networks[i].revive()
	})
}

func keepManySessions(t *testing.T, c *coterietest.Cluster, kill func(i int)) {
	leader := c.Leader()
	spare := c.Index(leader)
	sessions := make([]*coterie.Session, 0, 2**manySessions)
	defer func() {
		for _, s := range sessions {
			s.Orphan()
		}
	}()
	opened := make(chan *coterie.Session)
	var opening sync.WaitGroup
	for _, n := range c.Nodes() {
		if n == leader {
			continue
		}
		const openers = 200
		for i := range openers {
			opening.Go(func() {
				for range (*manySessions + openers - 1 - i) / openers {
					s, err := coterie.NewSession(t.Context(), n, coterie.WithTTL(9*time.Second))
					if err != nil {
						t.Error(err)
						return
					}
					opened <- s
				}
			})
		}
	}
	go func() { opening.Wait(); close(opened) }()
	for s := range opened {
		sessions = append(sessions, s)
	}
	require.Len(t, sessions, 2**manySessions)

	calm := func(what string) {
		t.Helper()
		term, begin, cpu := c.Leader().Status().Term, time.Now(), cpuTime()
		time.Sleep(*sessionsTime / 3)
		used, d := cpuTime()-cpu, time.Since(begin)
		t.Logf("%s: %v, %.1f %% of a core", what, d.Round(time.Second), 100*used.Seconds()/d.Seconds())
		lost := 0
		var first error
		for _, s := range sessions {
			if err := s.Err(); err != nil {
				lost++
				first = err
			}
		}
		require.Zero(t, lost, "sessions were lost: %v", first)
		require.Equal(t, term, c.Leader().Status().Term, "the term changed")
	}
	calm("with the first leader")
	c.Stop(spare)
	calm("after the leader was closed")
	c.Restart(spare)
	require.NoError(t, c.Node(spare).Ready(t.Context()))
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = c.Leader().TransferLeadership(ctx, c.Node(spare).ID())
		return c.Leader() == c.Node(spare)
	}, time.Minute, 100*time.Millisecond)
	kill(spare)
	calm("after the leader was killed")
}

// cpuTime returns the CPU time that this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A mortalNetwork is TCP that a test can end at once for one node, as when its process is killed.
type mortalNetwork struct {
	mu    sync.Mutex
	dead  bool
	conns map[net.Conn]struct{}
}

func newMortalNetwork() *mortalNetwork { return &mortalNetwork{conns: map[net.Conn]struct{}{}} }

func (m *mortalNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return m.own(new(net.Dialer).DialContext(ctx, "tcp", addr))
}

func (m *mortalNetwork) Listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	return mortalListener{l, m}, err
}

type mortalListener struct {
	net.Listener
	m *mortalNetwork
}

func (l mortalListener) Accept() (net.Conn, error) { return l.m.own(l.Listener.Accept()) }

type mortalConn struct {
	net.Conn
	m *mortalNetwork
}

func (c mortalConn) Close() error {
	c.m.mu.Lock()
	delete(c.m.conns, c.Conn)
	c.m.mu.Unlock()
	return c.Conn.Close()
}

func (m *mortalNetwork) own(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		c.Close()
		return nil, syscall.ENETDOWN
	}
	m.conns[c] = struct{}{}
	return mortalConn{c, m}, nil
}

// die breaks all connections, and prevents new ones until revive.
func (m *mortalNetwork) die() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	for c := range m.conns {
		c.Close()
	}
	clear(m.conns)
}

func (m *mortalNetwork) revive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = false
}
