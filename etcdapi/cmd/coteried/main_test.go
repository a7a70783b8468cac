// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

// A single member keeps its data, needs no flags about the cluster on later starts, and notifies systemd.
func TestOneMemberServes(t *testing.T) {
	p := newPlace(t, "a", "http")
	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer systemd.Close()
	m := runWith(t, []string{"NOTIFY_SOCKET=" + socket}, p.flags("--initial-cluster", p.entry())...)
	m.ready()
	require.Equal(t, "READY=1", receive(t, systemd))
	info, err := os.Stat(p.dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm(), "the data directory")
	c := dial(t, nil, p.clientURL())
	put(t, c, "k", "v")
	all, err := c.MemberList(t.Context())
	require.NoError(t, err)
	require.Equal(t, []*pb.Member{{
		ID: all.Members[0].ID, Name: "a", PeerURLs: []string{p.peerURL()}, ClientURLs: []string{p.clientURL()},
	}}, all.Members)
	resp, err := http.Get(p.clientURL() + "/version")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)

	m.stop()
	require.Equal(t, "STOPPING=1", receive(t, systemd))
	m.args = slices.DeleteFunc(p.flags(), func(arg string) bool { return arg == "--initial-advertise-peer-urls" || arg == p.peerURL() })
	m.args = slices.DeleteFunc(m.args, func(arg string) bool { return arg == "--listen-peer-urls" })
	m.args = append(m.args, "--listen-peer-urls", p.peerURL())
	m.start()
	m.ready()
	require.Equal(t, "v", value(t, c, "k"))
	m.Prints("server has already been initialized")
	again, err := c.MemberList(t.Context())
	require.NoError(t, err)
	require.Equal(t, all.Members[0].PeerURLs, again.Members[0].PeerURLs, "the advertised URL is kept")
	require.Equal(t, all.Members[0].ID, again.Members[0].ID)
}

func receive(t *testing.T, c *net.UnixConn) string {
	b := make([]byte, 100)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	n, err := c.Read(b)
	require.NoError(t, err)
	return string(b[:n])
}

func TestKilledMemberComesBack(t *testing.T) {
	processTest(t)
	cl := startCluster(t, 3, "http")
	c := dial(t, nil, cl.clientURLs()...)
	put(t, c, "k", "1")
	all, err := c.MemberList(t.Context())
	require.NoError(t, err)
	require.Len(t, all.Members, 3)
	down := cl.leader(t, c)
	cl.members[down].Kill()
	put(t, c, "k", "2")
	cl.members[down].args = cl.places[down].flags() // without --initial-cluster
	cl.members[down].start()
	cl.members[down].ready()
	require.Equal(t, "2", value(t, dial(t, nil, cl.places[down].clientURL()), "k"))
}

// A leader that gets a signal to stop hands over first. Writers lose no acknowledged write, and hardly wait, even if
// they also use the endpoint of the leader.
func TestLeaderHandsOver(t *testing.T) {
	processTest(t)
	cl := startCluster(t, 3, "http")
	c := dial(t, nil, cl.clientURLs()...)
	leader := cl.leader(t, c)
	others := slices.Delete(cl.clientURLs(), leader, leader+1)
	writers := []*writer{{prefix: "others/", client: dial(t, nil, others...)}, {prefix: "all/", client: c}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	for _, w := range writers {
		running.Go(func() { w.run(ctx) })
		eventually(t, func(context.Context) error { return atLeast(&w.acknowledged, 100) })
		w.pause.Store(0)
	}
	cl.members[leader].stop()
	cl.members[leader].Prints("leadership transfer completed")
	for _, w := range writers {
		after := w.acknowledged.Load()
		eventually(t, func(context.Context) error { return atLeast(&w.acknowledged, after+100) })
	}
	stop()
	running.Wait()
	for _, w := range writers {
		t.Logf("the longest time without an acknowledged write to %s was %v", w.prefix, time.Duration(w.pause.Load()))
		require.Less(t, time.Duration(w.pause.Load()), 3*time.Second)
		r, err := dial(t, nil, others...).Get(t.Context(), w.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		require.NoError(t, err)
		require.GreaterOrEqual(t, r.Count, w.acknowledged.Load())
	}
}

// A writer puts keys, one after the other.
type writer struct {
	prefix       string
	client       *clientv3.Client
	acknowledged atomic.Int64
	pause        atomic.Int64 // the longest time between two acknowledged writes, in nanoseconds
}

func (w *writer) run(ctx context.Context) {
	last := time.Now()
	for i := 1; ctx.Err() == nil; i++ {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := w.client.Put(call, fmt.Sprint(w.prefix, i), "x")
		cancel()
		if err == nil {
			w.acknowledged.Add(1)
			w.pause.Store(max(w.pause.Load(), int64(time.Since(last))))
			last = time.Now()
		}
	}
}

func atLeast(n *atomic.Int64, want int64) error {
	if have := n.Load(); have < want {
		return fmt.Errorf("%d of %d writes", have, want)
	}
	return nil
}

// A member joins as in etcd: a client adds its peer URL, and the member starts with the list of members. A learner
// stays a learner until it is promoted.
func TestAddedMembersJoin(t *testing.T) {
	processTest(t)
	cl := startCluster(t, 1, "http")
	c := dial(t, nil, cl.clientURLs()...)
	put(t, c, "k", "v")
	second, third := newPlace(t, "second", "http"), newPlace(t, "third", "http")

	_, err := c.MemberAdd(t.Context(), []string{second.peerURL()})
	require.NoError(t, err)
	members := cl.places[0].entry() + "," + second.entry()
	m := run(t, second.flags("--initial-cluster", members, "--initial-cluster-state", "existing", "--initial-cluster-token", "test")...)
	m.ready()
	require.Equal(t, "v", value(t, dial(t, nil, second.clientURL()), "k"))

	eventually(t, func(ctx context.Context) error {
		_, err := c.MemberAddAsLearner(ctx, []string{third.peerURL()})
		return err
	})
	members += "," + third.entry()
	learner := run(t, third.flags("--initial-cluster", members, "--initial-cluster-state", "existing", "--initial-cluster-token", "test")...)
	learner.ready()
	list := func() (names []string) {
		all, err := c.MemberList(t.Context())
		require.NoError(t, err)
		for _, m := range all.Members {
			name := m.Name
			if m.IsLearner {
				name += " learns"
			}
			names = append(names, name+" "+m.PeerURLs[0])
		}
		slices.Sort(names)
		return names
	}
	want := []string{"m0 " + cl.places[0].peerURL(), "second " + second.peerURL(), "third learns " + third.peerURL()}
	require.Eventually(t, func() bool { return slices.Equal(want, list()) }, 20*time.Second, 20*time.Millisecond, "%v", list())
	eventually(t, func(ctx context.Context) error {
		all, err := c.MemberList(ctx)
		if err != nil {
			return err
		}
		for _, m := range all.Members {
			if m.Name == "third" && m.IsLearner {
				_, err = c.MemberPromote(ctx, m.ID)
			}
		}
		return err
	})
	m.Kill()
	m.args = second.flags()
	m.start()
	m.ready()
	cl.members[0].stop()
	require.Equal(t, "v", value(t, dial(t, nil, second.clientURL()), "k"))
}

// A member that has moved starts with its new URLs, and the others find it.
func TestMemberMoves(t *testing.T) {
	processTest(t)
	cl := startCluster(t, 3, "http")
	c := dial(t, nil, cl.clientURLs()...)
	put(t, c, "k", "v")
	m, moved := cl.members[2], cl.places[2]
	m.stop()
	moved.peer = processtest.FreeAddr(t)
	m.args = moved.flags()
	m.start()
	m.ready()
	require.Equal(t, "v", value(t, dial(t, nil, moved.clientURL()), "k"))
	eventually(t, func(ctx context.Context) error {
		all, err := c.MemberList(ctx)
		if err == nil && !slices.ContainsFunc(all.Members, func(m *pb.Member) bool { return slices.Equal(m.PeerURLs, []string{moved.peerURL()}) }) {
			err = fmt.Errorf("no member has moved: %v", all.Members)
		}
		return err
	})
	m.Kill()
	m.start()
	m.ready()
}

// A member that is removed stops, and systemd has no reason to start it again.
func TestRemovedMemberExits(t *testing.T) {
	processTest(t)
	cl := startCluster(t, 3, "http")
	c := dial(t, nil, cl.places[0].clientURL())
	s, err := c.Status(t.Context(), cl.places[2].clientURL())
	require.NoError(t, err)
	eventually(t, func(ctx context.Context) error { _, err := c.MemberRemove(ctx, s.Header.MemberId); return err })
	require.Zero(t, cl.members[2].Exits())
	cl.members[2].Prints("the member has been permanently removed from the cluster")
}

func TestLastMemberForcesNewCluster(t *testing.T) {
	processTest(t)
	cl := startCluster(t, 3, "http")
	put(t, dial(t, nil, cl.clientURLs()...), "k", "v")
	for _, m := range cl.members {
		m.Kill()
	}
	m := cl.members[1]
	m.args = cl.places[1].flags("--force-new-cluster")
	m.start()
	m.ready()
	c := dial(t, nil, cl.places[1].clientURL())
	require.Equal(t, "v", value(t, c, "k"))
	all, err := c.MemberList(t.Context())
	require.NoError(t, err)
	require.Len(t, all.Members, 1)
	plan, _, err := bootstrap.Read(cl.places[1].dir)
	require.NoError(t, err)
	require.Len(t, plan.Founders, 1, "the member looks for no other one later")
	m.stop()
	m.args = cl.places[1].flags()
	m.start()
	m.ready()
	require.Equal(t, "v", value(t, c, "k"))
}

func TestListenersHaveTheirPurpose(t *testing.T) {
	processTest(t)
	p := newPlace(t, "a", "http")
	web, watched, socket := processtest.FreeAddr(t), processtest.FreeAddr(t), filepath.Join(t.TempDir(), "s")
	file := filepath.Join(t.TempDir(), "etcd.yml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "name: a\ndata-dir: %s\nlisten-peer-urls: %s\ninitial-advertise-peer-urls: %s\n"+
		"listen-client-urls: %s,unix://%s\nadvertise-client-urls: %s\nlisten-client-http-urls: http://%s\nlisten-metrics-urls: http://%s\nenable-pprof: true\n",
		p.dir, p.peerURL(), p.peerURL(), p.clientURL(), socket, p.clientURL(), web, watched), 0o600))
	m := runWith(t, []string{"ETCD_CONFIG_FILE=" + file})
	m.ready()
	put(t, dial(t, nil, p.clientURL()), "k", "v")
	require.Equal(t, "v", value(t, dial(t, nil, "unix://"+socket), "k"))
	for url, code := range map[string]int{
		p.clientURL() + "/version": 404, "http://" + web + "/version": 200, "http://" + web + "/debug/pprof/": 200,
		"http://" + watched + "/metrics": 200, "http://" + watched + "/health": 200, "http://" + watched + "/version": 404,
		"http://" + web + "/debug/vars": 200, "http://" + watched + "/debug/vars": 404, "http://" + watched + "/debug/pprof/": 404,
	} {
		resp, err := http.Get(url)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, code, resp.StatusCode, url)
	}
	m.Kill()
	m.start() // the file of the socket is left
	m.ready()
}

func TestSignalsOfOneMomentAreOne(t *testing.T) {
	processTest(t)
	// The other founder is missing, so the member waits for it.
	p, missing := newPlace(t, "a", "http"), newPlace(t, "b", "http")
	m := run(t, p.flags("--initial-cluster", p.entry()+","+missing.entry())...)
	m.Prints("serving client traffic")
	m.Signal(syscall.SIGINT)
	m.Signal(syscall.SIGTERM) // at the same moment, so they count as one
	require.Zero(t, m.Exits())
}

// A daemon that cannot start prints one line, and exits with 1.
func TestStartFailsWithOneLine(t *testing.T) {
	processTest(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	fails := func(text string, args ...string) {
		t.Helper()
		m := run(t, args...)
		require.Equal(t, 1, m.Exits())
		m.Prints(text)
	}
	p := newPlace(t, "a", "http")
	used := p
	used.client = taken.Addr().String()
	fails("address already in use", used.flags()...)
	used = p
	used.peer = taken.Addr().String()
	fails("--listen-peer-urls: coterie: listening on "+used.peer, used.flags()...)
	fails("couldn't find local name", p.flags("--initial-cluster=b=http://127.0.0.1:1")...)
	fails("does not have this flag of etcd", p.flags("--wal-dir=w")...)
	fails("no such file or directory", append(p.flags("--cert-file=missing.pem", "--key-file=missing.key"),
		"--listen-client-urls=https://"+p.client, "--advertise-client-urls=https://"+p.client)...)
	fails("no such file or directory", append(p.flags("--peer-cert-file=missing.pem", "--peer-key-file=missing.key", "--peer-trusted-ca-file=missing.pem"),
		"--listen-peer-urls=https://"+p.peer, "--initial-advertise-peer-urls=https://"+p.peer)...)
	require.NoDirExists(t, filepath.Join(p.dir, "member"))

	m := run(t, p.flags("--initial-cluster-token=one")...)
	m.ready()
	fails("coterie: data directory in use", append(p.flags(), "--listen-client-urls=http://127.0.0.1:0", "--listen-peer-urls=http://127.0.0.1:0")...)
	m.stop()
	fails(`belongs to the cluster \"one\"`, p.flags("--initial-cluster-token=two")...)

	waiting, missing := newPlace(t, "a", "http"), newPlace(t, "b", "http")
	list := "--initial-cluster=" + waiting.entry() + "," + missing.entry()
	m = run(t, waiting.flags(list, "--initial-cluster-token=typo")...)
	m.Prints("serving client traffic")
	m.Kill()
	fails("remove --data-dir if this member was never ready", waiting.flags(list, "--initial-cluster-token=correct")...)
	fails("remove --data-dir if this member was never ready", waiting.flags("--name=b", list, "--initial-cluster-token=typo",
		"--initial-advertise-peer-urls="+missing.peerURL())...)

	precious := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(precious, []byte("kept"), 0o600))
	fails("is not a socket", newPlace(t, "a", "http").flags("--listen-client-urls=unix://"+precious)...)
	require.FileExists(t, precious)

	theirs := newPlace(t, "a", "http")
	require.NoError(t, os.MkdirAll(filepath.Join(theirs.dir, "member", "wal"), 0o700))
	fails("belongs to an etcd", theirs.flags()...)
}
