// SPDX-License-Identifier: Apache-2.0

package compat

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

var record = flag.String("record", "", "record the formats of this commit in testdata")

// writes is the number of writes in each golden cluster: enough for several snapshots and segments.
const writes = 500

// TestRecord records the formats of a version. Run it for each release, and commit its output.
//
//	go test -run TestRecord -record COMMIT
func TestRecord(t *testing.T) {
	if *record == "" {
		t.Skip("only with -record")
	}
	requireHistory(t, *record)
	old := earlier(t, *record)
	dir := t.TempDir()
	lines := wiretaps{taps: map[string]*wiretap{}}
	all := sites(t, dir, func(addr string) string { return lines.tap(t, addr) })
	procs := []*process{}
	for _, s := range all {
		procs = append(procs, old.start(t, s))
	}
	for i := range writes {
		procs[i%3].must(t, fmt.Sprintf("put k%d v%d", i, i))
	}
	to, err := filepath.Abs(filepath.Join("testdata", *record))
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(to, 0o755))
	procs[0].must(t, "backup "+filepath.Join(to, "backup"))
	for _, p := range procs {
		p.stop(t)
	}
	output(t, exec.CommandContext(t.Context(), "tar", "-C", dir, "-czf", filepath.Join(to, "directories.tar.gz"), "a", "b", "c"))
	lanes := map[byte]bool{}
	for _, s := range all { // the leader sends raft's messages to the others, and they call the leader
		for lane, said := range lines.to(s.addr) {
			lanes[lane] = true
			require.NoError(t, os.WriteFile(filepath.Join(to, fmt.Sprintf("lane-%c-to-%s", lane, s.name)), said, 0o644))
		}
	}
	require.Len(t, lanes, 2)
}

// wiretaps relay connections to nodes and record the callers' side.
type wiretaps struct {
	mu   sync.Mutex
	taps map[string]*wiretap // by the address of the node
}

type wiretap struct {
	mu      sync.Mutex
	spoken  []*bytes.Buffer
	address string
}

func (w *wiretaps) tap(t *testing.T, addr string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	tap := &wiretap{address: addr}
	w.mu.Lock()
	w.taps[addr] = tap
	w.mu.Unlock()
	go func() {
		for {
			caller, err := l.Accept()
			if err != nil {
				return
			}
			go tap.relay(caller)
		}
	}()
	return l.Addr().String()
}

func (w *wiretap) relay(caller net.Conn) {
	defer caller.Close()
	node, err := net.Dial("tcp", w.address)
	if err != nil {
		return
	}
	defer node.Close()
	said := &bytes.Buffer{}
	w.mu.Lock()
	w.spoken = append(w.spoken, said)
	w.mu.Unlock()
	go func() { _, _ = io.Copy(caller, node); caller.Close() }()
	_, _ = io.Copy(io.MultiWriter(node, said), caller)
}

// to returns the messages of one caller to a node, by lane: the hello and five frames.
func (w *wiretaps) to(addr string) map[byte][]byte {
	tap, spoken := w.taps[addr], map[byte][]byte{}
	tap.mu.Lock()
	defer tap.mu.Unlock()
	for _, said := range tap.spoken {
		c := conversation(said.Bytes())
		if end, ok := c.end(5); ok {
			spoken[c[0]] = c[:end]
		}
	}
	return spoken
}

// A conversation is the caller's side of a connection: the lane, the hello, frames.
type conversation []byte

// hello returns the end of the hello: 4 bytes of magic, the version, the length of the rest, the rest.
func (c conversation) hello() int { return 1 + 6 + int(c[6]) }

// end returns the end of the first frames.
func (c conversation) end(frames int) (at int, ok bool) {
	if len(c) < 7 {
		return 0, false
	}
	for at = c.hello(); frames > 0; frames-- {
		if at+5 > len(c) {
			return 0, false
		}
		at += 5 + int(binary.BigEndian.Uint32(c[at:]))
	}
	return at, at <= len(c)
}

// golden runs a test for each version with recorded formats, with its directories.
func golden(t *testing.T, test func(t *testing.T, from, dir string)) {
	versions, err := filepath.Glob("testdata/*")
	require.NoError(t, err)
	require.NotEmpty(t, versions)
	for _, from := range versions {
		t.Run(filepath.Base(from), func(t *testing.T) {
			dir := t.TempDir()
			output(t, exec.CommandContext(t.Context(), "tar", "-C", dir, "-xzf", filepath.Join(from, "directories.tar.gz")))
			test(t, from, dir)
		})
	}
}

// open opens a node of a golden directory on a network in memory.
func open(t *testing.T, network coterie.Network, dir, name string) *coterie.Node {
	t.Helper()
	n, err := coterie.Open(t.Context(), coterie.Config{
		Name: name, Addr: name + ":1", Dir: filepath.Join(dir, name), Network: network, ElectionTimeout: 500 * time.Millisecond,
		Founders: []coterie.Founder{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1"}, {Name: "c", Addr: "c:1"}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// requireWrites checks that a node has all writes.
func requireWrites(t *testing.T, n *coterie.Node) {
	t.Helper()
	require.NoError(t, n.Ready(t.Context()))
	require.NoError(t, n.Check(t.Context()))
	for i := range writes {
		r, err := n.Get(t.Context(), fmt.Sprint("k", i))
		require.NoError(t, err)
		require.Len(t, r.KVs, 1)
		require.Equal(t, fmt.Sprint("v", i), r.KVs[0].Value)
	}
}

func TestEarlierDirectoriesAreOpened(t *testing.T) {
	golden(t, func(t *testing.T, _, dir string) {
		for _, name := range []string{"a", "b", "c"} {
			in, err := datadir.Inspect(t.Context(), filepath.Join(dir, name))
			require.NoError(t, err)
			require.Len(t, in.Members, 3)
			require.NotEmpty(t, in.Snapshots)
		}
		network := coterie.NewMemoryNetwork()
		nodes := []*coterie.Node{}
		for _, name := range []string{"a", "b", "c"} {
			nodes = append(nodes, open(t, network, dir, name))
		}
		for _, n := range nodes {
			requireWrites(t, n)
		}
		r, err := nodes[2].Put(t.Context(), "k0", "v0")
		require.NoError(t, err)
		var hashes []uint64
		for _, n := range nodes {
			require.NoError(t, n.Ready(t.Context()))
			h, err := n.Hash(t.Context(), r.Revision)
			require.NoError(t, err)
			hashes = append(hashes, h.Hash)
		}
		require.Equal(t, []uint64{hashes[0], hashes[0], hashes[0]}, hashes)
	})
}

func TestEarlierBackupsAreRestored(t *testing.T) {
	golden(t, func(t *testing.T, from, _ string) {
		b, err := os.ReadFile(filepath.Join(from, "backup"))
		require.NoError(t, err)
		cfg := coterie.Config{Name: "restored", Dir: filepath.Join(t.TempDir(), "new")}
		require.NoError(t, coterie.RestoreBackup(t.Context(), bytes.NewReader(b), cfg))
		n, err := coterie.Open(t.Context(), cfg)
		require.NoError(t, err)
		requireWrites(t, n)
		require.NoError(t, n.Close())
	})
}

// A node accepts the hello of a peer of an earlier version on both lanes, and replies to each request.
func TestEarlierPeersAreAnswered(t *testing.T) {
	golden(t, func(t *testing.T, from, dir string) {
		network := coterie.NewMemoryNetwork()
		for _, name := range []string{"a", "b", "c"} {
			open(t, network, dir, name)
		}
		recorded, err := filepath.Glob(filepath.Join(from, "lane-*"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(recorded), 2)
		for _, file := range recorded {
			said, err := os.ReadFile(file)
			require.NoError(t, err)
			c, lane := conversation(said), string(said[0])
			nc, err := network.Dial(t.Context(), file[len(file)-1:]+":1")
			require.NoError(t, err)
			require.NoError(t, nc.SetDeadline(time.Now().Add(30*time.Second)))
			_, err = nc.Write(c[:c.hello()])
			require.NoError(t, err)
			var start [6]byte
			_, err = io.ReadFull(nc, start[:])
			require.NoError(t, err, "lane %s", lane)
			require.Equal(t, c[1:6], conversation(start[:5]), "magic and version")
			hello := make([]byte, start[5])
			_, err = io.ReadFull(nc, hello)
			require.NoError(t, err)
			require.False(t, refused(hello), "%x", hello)
			for i := range 5 {
				at, _ := c.end(i)
				next, ok := c.end(i + 1)
				require.True(t, ok)
				_, err = nc.Write(c[at:next])
				require.NoError(t, err)
				var head [5]byte
				_, err = io.ReadFull(nc, head[:])
				require.NoError(t, err, "lane %s, request %d", lane, i)
				if lane == "R" {
					require.Zero(t, head[4], "raft replies")
				}
				_, err = io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint32(head[:])))
				require.NoError(t, err)
			}
			require.NoError(t, nc.Close())
		}
	})
}

// refused reports whether an answer to a hello has a verdict, which is its field 4. An accepting answer
// has none.
func refused(hello []byte) bool {
	for len(hello) > 0 {
		tag, n := binary.Uvarint(hello)
		_, m := binary.Uvarint(hello[n:])
		if tag>>1 == 4 {
			return true
		}
		if tag&1 == 1 {
			size, _ := binary.Uvarint(hello[n:])
			m += int(size)
		}
		hello = hello[n+m:]
	}
	return false
}
