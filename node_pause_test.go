// SPDX-License-Identifier: Apache-2.0

//go:build unix

package coterie

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// These are the environment variables of the processes of TestPausedLeadersAgree.
const (
	pausedNode    = "COTERIE_PAUSED_NODE"
	pausedDir     = "COTERIE_PAUSED_DIR"
	pausedAddrs   = "COTERIE_PAUSED_ADDRS"
	pausedTimeout = "COTERIE_PAUSED_TIMEOUT"
	// pauses is the number of pauses, for a long run with the default election timeout.
	pauses = "COTERIE_PAUSES"
)

// pausedWriters is the number of writers of each process. A writer counts in a key of its own: the version of the
// key is the number of its writes that were applied.
const pausedWriters = 32

func pausedKey(node, writer int) string { return fmt.Sprintf("n%d/%d", node, writer) }

// This is the acceptance test for hashicorp/raft#695 with real processes. Leaders are stopped during writes, for longer
// than an election takes, and then continue. With raft's own transport, the heartbeat of a new leader makes such a
// leader write an entry with the new leader's term, and the state machines differ for ever.
func TestPausedLeadersAgree(t *testing.T) {
	rounds, timeout := 8, 200*time.Millisecond
	if given := os.Getenv(pauses); given != "" {
		var err error
		rounds, err = strconv.Atoi(given)
		require.NoError(t, err)
		timeout = time.Second
	} else if testing.Short() {
		t.Skip("starts processes, and waits by the real clock")
	}
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	between := func(low, high float64) time.Duration {
		return time.Duration((low + (high-low)*random.Float64()) * float64(timeout))
	}
	all := startPaused(t, timeout)
	for round := 1; round <= rounds; round++ {
		leader := all.leader(timeout / 20)
		pause(between(0.3, 0.6))
		leader.signal(syscall.SIGSTOP)
		pause(between(2, 4))
		leader.signal(syscall.SIGCONT)
		pause(timeout * 2 / 5)
		if round%10 == 0 {
			all.agree(all.revision())
			t.Logf("%d pauses, revision %d", round, all.revision())
		}
	}
	written := 0
	for _, p := range all {
		written += p.number("stop")
	}
	rev := 1 + written
	for _, p := range all {
		require.Equal(t, "final", p.ask("final", rev)[0], "node %d", p.i)
	}
	all.agree(rev)
	all.agreeOnAll()
	t.Logf("%d pauses, %d writes", rounds, written)
	require.Greater(t, written, rounds, "there was something to lose")
}

// pause waits by the real clock, because the processes use it.
func pause(d time.Duration) { <-time.After(d) }

// A pausedProcess is a node in a process of its own. The process answers each line of standard input with a line of
// standard output, and ends when its standard input ends.
type pausedProcess struct {
	t     *testing.T
	i     int
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

type pausedCluster []*pausedProcess

// startPaused starts three processes and waits until all of their writers write.
func startPaused(t *testing.T, timeout time.Duration) (all pausedCluster) {
	addrs := freeAddrs(t, 3)
	dir := t.TempDir()
	for i := range addrs {
		p := &pausedProcess{t: t, i: i, cmd: exec.Command(os.Args[0], "-test.run", "^TestPausedNode$", "-test.timeout", "0")}
		p.cmd.Env = append(os.Environ(), pausedNode+"="+strconv.Itoa(i), pausedDir+"="+filepath.Join(dir, strconv.Itoa(i)),
			pausedAddrs+"="+strings.Join(addrs, ","), pausedTimeout+"="+timeout.String())
		// The child gets a process group of its own. If the test is killed while the child is stopped, the system
		// continues the child, which then finds the end of its standard input.
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		p.cmd.Stderr = os.Stderr
		var err error
		p.in, err = p.cmd.StdinPipe()
		require.NoError(t, err)
		out, err := p.cmd.StdoutPipe()
		require.NoError(t, err)
		p.lines = bufio.NewScanner(out)
		all = append(all, p)
	}
	return all.start()
}

// freeAddrs returns addresses on loopback that were free a moment ago.
func freeAddrs(t *testing.T, n int) (addrs []string) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addrs = append(addrs, l.Addr().String())
		defer l.Close() // when all addresses are known, so that they differ
	}
	return addrs
}

func (all pausedCluster) start() pausedCluster {
	for _, p := range all {
		require.NoError(p.t, p.cmd.Start())
		p.t.Cleanup(func() {
			p.signal(syscall.SIGCONT)
			p.in.Close()
			limit := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
			defer limit.Stop()
			for p.lines.Scan() { // Wait closes the pipe
			}
			if err := p.cmd.Wait(); err != nil {
				p.t.Errorf("node %d: %v", p.i, err)
			}
		})
	}
	for _, p := range all {
		p.ask("start")
	}
	return all
}

func (p *pausedProcess) signal(s os.Signal) { require.NoError(p.t, p.cmd.Process.Signal(s)) }

// ask sends a question to the process, and returns the words of the answer.
func (p *pausedProcess) ask(question ...any) []string {
	p.t.Helper()
	_, err := fmt.Fprintln(p.in, question...)
	require.NoError(p.t, err)
	limit := time.AfterFunc(2*time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer limit.Stop()
	var said strings.Builder
	for p.lines.Scan() {
		fmt.Fprintln(&said, p.lines.Text())
		if answer, ok := strings.CutPrefix(p.lines.Text(), "answer "); ok {
			return strings.Fields(answer)
		}
	}
	require.FailNow(p.t, "a process has ended or hangs", "node %d, asked %v, says %s", p.i, question, said.String())
	return nil
}

func (p *pausedProcess) number(question ...any) int {
	p.t.Helper()
	n, err := strconv.Atoi(p.ask(question...)[0])
	require.NoError(p.t, err)
	return n
}

// leader waits for a process with a node that leads.
func (all pausedCluster) leader(look time.Duration) *pausedProcess {
	for begin := time.Now(); time.Since(begin) < time.Minute; pause(look) {
		for _, p := range all {
			if p.ask("leads")[0] == "true" {
				return p
			}
		}
	}
	require.FailNow(all[0].t, "no leader")
	return nil
}

// revision returns a revision that every node has applied or will apply.
func (all pausedCluster) revision() (rev int) {
	for _, p := range all {
		rev = max(rev, p.number("revision"))
	}
	return rev
}

// agree requires that all nodes have the same keys at a revision.
func (all pausedCluster) agree(rev int) {
	first := all[0].ask("hash", rev)
	for _, p := range all[1:] {
		require.Equal(p.t, first, p.ask("hash", rev), "node %d at revision %d", p.i, rev)
	}
}

// agreeOnAll waits until all nodes have applied the same index, and requires that they have made the same changes in
// the same order. No writer may run.
func (all pausedCluster) agreeOnAll() {
	for begin := time.Now(); time.Since(begin) < time.Minute; pause(10 * time.Millisecond) {
		indexes, digests := map[string]bool{}, map[string]bool{}
		for _, p := range all {
			state := p.ask("state")
			indexes[state[0]], digests[state[1]] = true, true
		}
		if len(indexes) == 1 {
			require.Len(all[0].t, digests, 1)
			return
		}
	}
	require.FailNow(all[0].t, "the nodes do not reach the same index")
}

// TestPausedNode is a process that TestPausedLeadersAgree starts, and does nothing otherwise.
func TestPausedNode(t *testing.T) {
	i, err := strconv.Atoi(os.Getenv(pausedNode))
	if err != nil {
		t.Skip("for TestPausedLeadersAgree")
	}
	timeout, err := time.ParseDuration(os.Getenv(pausedTimeout))
	require.NoError(t, err)
	var founders []Founder
	for j, addr := range strings.Split(os.Getenv(pausedAddrs), ",") {
		founders = append(founders, Founder{Name: fmt.Sprint("n", j), Addr: addr})
	}
	n, err := Open(t.Context(), Config{
		Dir: os.Getenv(pausedDir), Name: founders[i].Name, Addr: founders[i].Addr, Founders: founders, ElectionTimeout: timeout,
		SnapshotEntries: 1000,
	})
	require.NoError(t, err)
	w := &writers{node: i, n: n, stop: make(chan struct{})}
	stopped := false
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var question string
		var rev int64
		fmt.Sscan(lines.Text(), &question, &rev)
		var answer any
		switch question {
		case "start":
			w.start(t)
			answer = "started"
		case "leads":
			answer = n.lead.Now().Self
		case "revision":
			answer = n.views.Load().KV.Revision()
		case "hash":
			_, err := n.Get(t.Context(), "any", WithWaitRevision(rev))
			require.NoError(t, err)
			h, err := n.Hash(t.Context(), rev)
			require.NoError(t, err)
			answer = h.Hash
		case "state":
			v := n.views.Load()
			answer = fmt.Sprint(v.Index, " ", v.Hash)
		case "stop":
			answer, stopped = w.end(), true
		case "final":
			w.check(t)
			require.Equal(t, rev, n.views.Load().KV.Revision(), "each acknowledged write has its own revision, and there is no other revision")
			require.NoError(t, n.Check(t.Context()))
			answer = "final"
		}
		fmt.Println("answer", answer)
	}
	if !stopped { // the test has failed
		return
	}
	require.NoError(t, n.Close())
}

// writers write on a node until end is called or the process ends.
type writers struct {
	node    int
	n       *Node
	stop    chan struct{}
	running sync.WaitGroup
	written [pausedWriters]int
}

func (w *writers) start(t *testing.T) {
	for i := range pausedWriters {
		w.running.Go(func() {
			for {
				if _, err := w.n.Put(context.Background(), pausedKey(w.node, i), strconv.Itoa(w.written[i]+1)); err != nil {
					t.Error(err)
					return
				}
				w.written[i]++
				select {
				case <-w.stop:
					return
				case <-time.After(time.Duration(2+i%5) * time.Millisecond):
				}
			}
		})
	}
}

// end stops the writers, waits for their last answers, and returns the number of answers.
func (w *writers) end() (written int) {
	close(w.stop)
	w.running.Wait()
	for _, n := range w.written {
		written += n
	}
	return written
}

// check requires that each write was applied once, and the last one last.
func (w *writers) check(t *testing.T) {
	for i, written := range w.written {
		r, err := w.n.Get(t.Context(), pausedKey(w.node, i))
		require.NoError(t, err)
		require.Len(t, r.KVs, 1)
		require.EqualValues(t, written, r.KVs[0].Version)
		require.Equal(t, strconv.Itoa(written), r.KVs[0].Value)
	}
}
