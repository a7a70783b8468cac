// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/dsync"
	"github.com/coterie-kv/coterie/mirror"
	"github.com/coterie-kv/coterie/sharedconfig"
	"github.com/coterie-kv/coterie/stm"
)

// A rogue is code of a user that misbehaves as a test demands: the Network of a node, or a function of its
// Config.TLS.
type rogue struct {
	coterie.Network
	at   atomic.Pointer[string] // the method that misbehaves; nil: none
	gate atomic.Pointer[chan struct{}]
	hits atomic.Int64
}

// misbehave makes a method block until behave is called, or panic.
func (r *rogue) misbehave(method string, block bool) {
	r.hits.Store(0)
	if block {
		gate := make(chan struct{})
		r.gate.Store(&gate)
	}
	r.at.Store(&method)
}

func (r *rogue) behave() {
	r.at.Store(nil)
	if gate := r.gate.Swap(nil); gate != nil {
		close(*gate)
	}
}

func (r *rogue) in(method string) {
	if at := r.at.Load(); at == nil || *at != method {
		return
	}
	r.hits.Add(1)
	gate := r.gate.Load()
	if gate == nil {
		panic("rogue " + method)
	}
	<-*gate
}

func (r *rogue) Listen(addr string) (net.Listener, error) {
	r.in("Listen")
	l, err := r.Network.Listen(addr)
	return rogueListener{l, r}, err
}

func (r *rogue) Dial(ctx context.Context, addr string) (net.Conn, error) {
	r.in("Dial")
	nc, err := r.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return rogueConn{nc, r}, nil
}

type rogueListener struct {
	net.Listener
	r *rogue
}

func (l rogueListener) Accept() (net.Conn, error) {
	l.r.in("Accept")
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return rogueConn{nc, l.r}, nil
}

type rogueConn struct {
	net.Conn
	r *rogue
}

func (c rogueConn) Read(p []byte) (int, error)  { c.r.in("Read"); return c.Conn.Read(p) }
func (c rogueConn) Write(p []byte) (int, error) { c.r.in("Write"); return c.Conn.Write(p) }
func (c rogueConn) SetDeadline(t time.Time) error {
	c.r.in("SetDeadline")
	return c.Conn.SetDeadline(t)
}

// surviveRogue makes a method of node 2 misbehave from its next start on. It checks that the other nodes continue,
// that node 2 closes in time, and that node 2 serves when the method behaves again.
func surviveRogue(t *testing.T, method string, block bool) {
	ca := newAuthority(t, "ca")
	r := &rogue{}
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		c.Stop(2)
		r.misbehave(method, block)
		c.Restart(2)
		for range 8 {
			for _, i := range []int{0, 1} {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				_, err := c.Node(i).Put(ctx, "k", "v")
				require.NoError(t, err)
				_, err = c.Node(i).Get(ctx, "k")
				require.NoError(t, err)
				cancel()
			}
			time.Sleep(time.Second)
		}
		require.Positive(t, r.hits.Load(), "the method was never called")
		begin := time.Now()
		if block && (method == "Accept" || method == "Write") { // Close of the listener or the connection should end the call
			err := c.Node(2).Close()
			require.Equal(t, 3*time.Second, time.Since(begin))
			require.ErrorContains(t, err, "hangs")
			c.Crash(2)
		} else {
			c.Stop(2)
			require.Less(t, time.Since(begin), 3*time.Second)
		}
		r.behave()
		c.Restart(2)
		require.NoError(t, c.Node(2).Ready(t.Context()))
		put(t, c.Node(2), "k", "w")
	}, coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		if strings.HasPrefix(method, "TLS ") {
			cfg.TLS = ca.static(t, cfg.Name)
		}
		if i != 2 {
			return
		}
		r.Network = cfg.Network
		cfg.Network = r
		if cfg.TLS != nil {
			cfg.TLS.VerifyConnection = func(tls.ConnectionState) error { r.in("TLS VerifyConnection"); return nil }
			cfg.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				r.in("TLS GetClientCertificate")
				return &cfg.TLS.Certificates[0], nil
			}
		}
	}))
}

// A picky Metrics panics except at counters.
type picky struct{ coterie.ExpvarMetrics }

func (p *picky) Set(coterie.Metric, float64)     { panic("no gauge") }
func (p *picky) Observe(coterie.Metric, float64) { panic("no distribution") }

// survivePanics opens a node with a handler and a Metrics that panic, and checks that it continues and counts.
func survivePanics(t *testing.T, dropped coterie.Metric) {
	var p picky
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Node(0), "k", "v")
		time.Sleep(3 * time.Second)
		require.Positive(t, p.Value(dropped))
		put(t, c.Node(0), "k", "v")
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) {
		cfg.Metrics, cfg.Logger = &p, slog.New(panicking{slog.DiscardHandler})
	}))
}

// guestTests has a test for each row of the table in docs/guarantees.md.
var guestTests = map[string]func(t *testing.T){
	"Config.Logger's handler": func(t *testing.T) {
		t.Run("blocks", TestBlockedLoggerAndMetricsStallNothing)
		t.Run("panics", func(t *testing.T) { survivePanics(t, "coterie_log_dropped_total") })
	},
	"Config.Metrics": func(t *testing.T) {
		t.Run("blocks", TestBlockedLoggerAndMetricsStallNothing)
		t.Run("panics", func(t *testing.T) { survivePanics(t, "coterie_metrics_dropped_total") })
	},
	"Network.Listen": func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &rogue{Network: coterie.NewMemoryNetwork()}
			cfg := coterie.Config{InMemory: true, Addr: "a:1", Network: r}
			r.misbehave("Listen", false)
			_, err := coterie.Open(t.Context(), cfg)
			require.ErrorContains(t, err, "Config.Network has panicked: rogue Listen")
			r.misbehave("Listen", true)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = coterie.Open(ctx, cfg)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			r.behave()
			synctest.Wait()
			n, err := coterie.Open(t.Context(), cfg)
			require.NoError(t, err, "the listener that came late was closed")
			require.NoError(t, n.Close())
		})
	},
	"Network.Dial": func(t *testing.T) {
		t.Run("blocks", func(t *testing.T) { surviveRogue(t, "Dial", true) })
		t.Run("panics", func(t *testing.T) { surviveRogue(t, "Dial", false) })
	},
	"the listener's Accept": func(t *testing.T) {
		t.Run("blocks", func(t *testing.T) { surviveRogue(t, "Accept", true) })
		t.Run("panics", func(t *testing.T) { surviveRogue(t, "Accept", false) })
	},
	"a connection's methods": func(t *testing.T) {
		t.Run("Write blocks", func(t *testing.T) { surviveRogue(t, "Write", true) })
		for _, method := range []string{"Read", "Write", "SetDeadline"} {
			t.Run(method, func(t *testing.T) { surviveRogue(t, method, false) })
		}
	},
	"functions of Config.TLS": func(t *testing.T) {
		for _, method := range []string{"TLS VerifyConnection", "TLS GetClientCertificate"} {
			t.Run(method+" blocks", func(t *testing.T) { surviveRogue(t, method, true) })
			t.Run(method+" panics", func(t *testing.T) { surviveRogue(t, method, false) })
		}
	},
	"Config.VerifyMember": TestFailingVerifyMemberRejects,
	"bodies of Mutex.Do, RunWithLock, RunAsLeader, Once.Do": func(t *testing.T) {
		coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
			n := c.Node(0)
			s, err := coterie.NewSession(t.Context(), n)
			require.NoError(t, err)
			fail := func(context.Context, int64) error { panic("body") }
			once := func() error {
				_, err := dsync.NewOnce(s, "once").Do(t.Context(), func(context.Context) (string, error) { panic("body") })
				return err
			}
			for name, call := range map[string]func() error{
				"Mutex.Do":    func() error { return coterie.NewMutex(s, "lock").Do(t.Context(), fail) },
				"RunWithLock": func() error { return coterie.RunWithLock(t.Context(), n, "another", fail) },
				"RunAsLeader": func() error { return coterie.RunAsLeader(t.Context(), n, "lead", "", fail) },
				"Once.Do":     once,
			} {
				require.PanicsWithValue(t, "body", func() { _ = call() }, name)
				require.PanicsWithValue(t, "body", func() { _ = call() }, "%s: nothing is held", name)
			}
			require.NoError(t, s.Close())
		})
	},
	"bodies of stm.Run and sharedconfig.Value.Update": func(t *testing.T) {
		coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
			n := c.Node(0)
			require.PanicsWithValue(t, "body", func() {
				_, _ = stm.Run(t.Context(), n, func(tx *stm.Tx) error { panic("body") })
			})
			v, err := sharedconfig.Open(t.Context(), n, sharedconfig.Config[int]{Keys: []string{"k"}})
			require.NoError(t, err)
			require.PanicsWithValue(t, "body", func() { _, _ = v.Update(t.Context(), func(int) (int, error) { panic("body") }) })
			_, err = v.Update(t.Context(), func(int) (int, error) { return 1, nil })
			require.NoError(t, err)
			v.Close()
		})
	},
	"bodies of loops over Range, Watch, Follow and others": func(t *testing.T) {
		coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
			n := c.Node(0)
			put(t, n, "k", "v")
			for range n.Watch(t.Context(), "k", coterie.WithRevision(1)) {
				for i := range 1000 { // during this body
					put(t, n, "k", string(rune(i)))
				}
				break
			}
			require.PanicsWithValue(t, "body", func() {
				for range n.Watch(t.Context(), "k", coterie.WithRevision(1)) {
					panic("body")
				}
			})
			require.Zero(t, n.Status().Watchers)
		})
	},
	"readers and writers of Backup, RestoreBackup, InspectBackup": func(t *testing.T) {
		coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
			n := c.Node(0)
			require.PanicsWithValue(t, "io", func() { _, _ = n.Backup(t.Context(), panickingIO{}) })
			require.PanicsWithValue(t, "io", func() { _, _ = datadir.InspectBackup(t.Context(), panickingIO{}) })
			cfg := coterie.Config{Dir: t.TempDir()}
			require.PanicsWithValue(t, "io", func() { _ = coterie.RestoreBackup(t.Context(), panickingIO{}, cfg) })
			left, err := os.ReadDir(cfg.Dir)
			require.NoError(t, err)
			require.Empty(t, left, "nothing was written")

			hung := blockedWriter{make(chan struct{}), make(chan struct{})}
			backup := make(chan error)
			go func() { _, err := n.Backup(t.Context(), hung); backup <- err }()
			<-hung.begun
			put(t, n, "k", "v") // the node continues
			require.NoError(t, n.Close())
			close(hung.gate)
			require.ErrorIs(t, <-backup, coterie.ErrClosed)
			c.Restart(0)
		})
	},
	"decoders and groupings of mirror; Decode and Validate of sharedconfig": func(t *testing.T) {
		coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
			n, gate := c.Node(0), make(chan struct{})
			slow := func(text string) error {
				switch text {
				case "panic":
					panic("decoder")
				case "block":
					<-gate
				}
				return nil
			}
			x, err := mirror.New(t.Context(), n, "k", func(kv coterie.KeyValue) (string, error) { return kv.Value, slow(kv.Value) })
			require.NoError(t, err)
			v, err := sharedconfig.Open(t.Context(), n, sharedconfig.Config[string]{
				Keys: []string{"k"}, Decode: func(s string) (string, error) { return s, slow(s) }, Encode: func(s string) (string, error) { return s, nil },
			})
			require.NoError(t, err)
			put(t, n, "k", "panic")
			put(t, n, "k", "block")
			put(t, n, "k", "last")
			synctest.Wait()
			put(t, n, "other", "v") // the node continues
			close(gate)
			synctest.Wait()
			entry, _ := x.Snapshot().Get("k")
			require.Equal(t, "last", entry)
			require.Equal(t, "last", v.Current().Value)
			v.Close()
		})
	},
}

type panickingIO struct{}

func (panickingIO) Read([]byte) (int, error)  { panic("io") }
func (panickingIO) Write([]byte) (int, error) { panic("io") }

type blockedWriter struct{ begun, gate chan struct{} }

func (w blockedWriter) Write(b []byte) (int, error) {
	select {
	case <-w.begun:
	default:
		close(w.begun)
	}
	<-w.gate
	return len(b), nil
}

// TestUserCodeCannotStallTheNode runs a test for each row of the table.
func TestUserCodeCannotStallTheNode(t *testing.T) {
	text, err := os.ReadFile("docs/guarantees.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(text), "\n## Your code in a node\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	var rows []string
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \|`).FindAllStringSubmatch(section, -1) {
		rows = append(rows, strings.ReplaceAll(row[1], "`", ""))
	}
	rows = slices.DeleteFunc(rows, func(row string) bool { return row == "code" || row == "---" })
	for _, row := range rows {
		require.NotNil(t, guestTests[row], "no test of %q", row)
		t.Run(row, guestTests[row])
	}
	require.Len(t, rows, len(guestTests))
}

func TestHangingDialsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rogue{Network: coterie.NewMemoryNetwork()}
		n, err := coterie.Open(t.Context(), coterie.Config{
			InMemory: true, Name: "a", Addr: "a:1", Network: r, Founders: []coterie.Founder{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1"}},
		})
		require.NoError(t, err)
		r.misbehave("Dial", true)
		time.Sleep(time.Minute)
		require.Less(t, r.hits.Load(), int64(100))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.True(t, errors.Is(n.Ready(ctx), context.DeadlineExceeded))
		require.NoError(t, n.Close())
		r.behave()
	})
}
