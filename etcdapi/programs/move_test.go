// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

// A signal makes etcd write everything that it has applied to its database.
func TestMoveFromDirectoryOfStoppedEtcd(t *testing.T) {
	s := startEtcd(t, filepath.Join(t.TempDir(), "data"))
	fill(t, s.Client, true)
	h, err := s.HashKV(t.Context(), s.client, 0)
	require.NoError(t, err)
	before := dumpOf(t, s.Client, h.CompactRevision)
	_, err = etcdsnapshot.Read(t.Context(), s.dir)
	require.ErrorIs(t, err, coterie.ErrDirInUse)
	s.stop()
	c := etcdapi.NewClient(moved(t, s.dir))
	defer c.Close()
	requireEqual(t, before, dumpOf(t, c, h.CompactRevision))
}

// A killed etcd may have acknowledged writes that are only in its log. Its directory is refused until etcd has started
// and stopped once more.
func TestKilledEtcdLosesNoAcknowledgedWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for attempt := 1; ; attempt++ {
		s := startEtcd(t, dir)
		r, err := s.Put(t.Context(), fmt.Sprint("key", attempt), "acknowledged")
		require.NoError(t, err)
		s.kill()
		c, err := etcdsnapshot.Read(t.Context(), dir)
		if err == nil { // etcd had written its database, which it does every 100 ms
			require.Equal(t, r.Header.Revision, c.Revision())
			continue
		}
		require.ErrorIs(t, err, etcdsnapshot.ErrUnapplied)
		again := startEtcd(t, dir)
		again.stop()
		c, err = etcdsnapshot.Read(t.Context(), dir)
		require.NoError(t, err)
		require.Equal(t, r.Header.Revision, c.Revision())
		return
	}
}

// An etcd with keys, leases and users becomes a coteried, and that becomes an etcd again, at the same URL. Its clients
// are not restarted, and wait only during the two switches.
func TestServersChangeUnderTheirClients(t *testing.T) {
	client, peer := "http://"+processtest.FreeAddr(t), "http://"+processtest.FreeAddr(t)
	place := func(name string) string { return filepath.Join(t.TempDir(), name) }
	first := startServer(t, etcd, place("etcd"), client, peer, "--unsafe-no-fsync")
	fill(t, first.Client, true)
	h, err := first.HashKV(t.Context(), client, 0)
	require.NoError(t, err)
	addUsers(t, first.Client)
	root, user := login(t, client, "root", "secret"), login(t, client, "u", "password")
	w := startWork(t, user)

	// From etcd to coteried, by the data directory of the etcd.
	w.pause()
	before := dumpOf(t, root, h.CompactRevision)
	first.stop()
	dir := place("coteried")
	members := []string{"--name", "m", "--data-dir", dir, "--initial-cluster", "m=" + peer, "--initial-advertise-peer-urls", peer}
	run(t, coteried, append([]string{"restore", first.dir}, members...)...)
	second := startServer(t, coteried, dir, client, peer)
	requireEqual(t, before, dumpOf(t, root, h.CompactRevision))
	requireUsers(t, user)
	w.resume()

	// And back, by a snapshot of the running coteried, and by its directory.
	w.pause()
	before = dumpOf(t, root, h.CompactRevision)
	saved, copied := place("saved.db"), place("copied.db")
	run(t, coteried, "snapshot", "save", saved, "--endpoints", client, "--user", "root:secret")
	second.stop()
	run(t, coteried, "snapshot", "save", copied, "--data-dir", dir)
	require.Equal(t, run(t, coteried, "snapshot", "status", saved), run(t, coteried, "snapshot", "status", copied))
	dir = place("again")
	run(t, etcdutl, "snapshot", "restore", saved, "--name", "m", "--data-dir", dir, "--initial-cluster", "m="+peer, "--initial-advertise-peer-urls", peer)
	startServer(t, etcd, dir, client, peer, "--unsafe-no-fsync")
	requireEqual(t, before, dumpOf(t, root, h.CompactRevision))
	requireUsers(t, user)
	w.resume()
	w.pause()
}

// addUsers adds the user u, which may change the keys from a to b, and enables the checks.
func addUsers(t *testing.T, c *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	ok := func(_ any, err error) { t.Helper(); require.NoError(t, err) }
	ok(c.RoleAdd(ctx, "r"))
	ok(c.RoleGrantPermission(ctx, "r", "a", "b", clientv3.PermissionType(clientv3.PermReadWrite)))
	ok(c.UserAdd(ctx, "root", "secret"))
	ok(c.UserGrantRole(ctx, "root", "root"))
	ok(c.UserAdd(ctx, "u", "password"))
	ok(c.UserGrantRole(ctx, "u", "r"))
	ok(c.AuthEnable(ctx))
}

// login returns a client of a user, until the end of the test.
func login(t *testing.T, url, name, password string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Username: name, Password: password, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// requireUsers checks that a client of the user u has the permissions of addUsers, and that its password is needed.
func requireUsers(t *testing.T, c *clientv3.Client) {
	t.Helper()
	_, err := c.Get(t.Context(), "a")
	require.NoError(t, err)
	_, err = c.Get(t.Context(), "k")
	require.ErrorContains(t, err, "permission denied")
	_, err = c.Auth.Authenticate(t.Context(), "u", "other")
	require.ErrorContains(t, err, "authentication failed")
}

// A work writes the numbers from 1 on to a key with a lease, which it keeps alive. It checks that the key has the last
// number.
type work struct {
	t     *testing.T
	c     *clientv3.Client
	lease clientv3.LeaseID
	last  int
	stop  context.CancelFunc
	done  chan struct{}
	live  <-chan *clientv3.LeaseKeepAliveResponse
}

const workKey = "a-number"

func startWork(t *testing.T, c *clientv3.Client) *work {
	t.Helper()
	l, err := c.Grant(t.Context(), 60)
	require.NoError(t, err)
	w := &work{t: t, c: c, lease: l.ID}
	w.live, err = c.KeepAlive(t.Context(), l.ID)
	require.NoError(t, err)
	w.resume()
	return w
}

// resume continues the writes, and returns after some of them.
func (w *work) resume() {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	w.stop, w.done = stop, make(chan struct{})
	some := make(chan struct{})
	go func() {
		defer close(w.done)
		for n := 1; ctx.Err() == nil; n++ {
			r, err := w.c.Put(w.t.Context(), workKey, fmt.Sprint(w.last+1), clientv3.WithLease(w.lease), clientv3.WithPrevKV())
			if !assert.NoError(w.t, err) {
				return
			}
			if w.last > 0 && !assert.Equal(w.t, fmt.Sprint(w.last), string(r.PrevKv.GetValue())) {
				return
			}
			w.last++
			if n == 20 {
				close(some)
			}
		}
	}()
	select {
	case <-some:
	case <-w.done:
	case <-time.After(30 * time.Second):
		require.Fail(w.t, "no write succeeds")
	}
}

// pause ends the writes until resume. It checks that the lease is alive.
func (w *work) pause() {
	w.t.Helper()
	w.stop()
	<-w.done
	r, err := w.c.Get(w.t.Context(), workKey)
	require.NoError(w.t, err)
	require.Equal(w.t, fmt.Sprint(w.last), string(r.Kvs[0].Value))
	require.EqualValues(w.t, w.lease, r.Kvs[0].Lease)
	select {
	case _, ok := <-w.live:
		require.True(w.t, ok, "the client no longer renews the lease")
	default:
	}
}
