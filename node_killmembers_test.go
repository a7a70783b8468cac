// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// memberEnv is the environment variable that describes the node of TestMember: its number, its storage, its directory,
// and the addresses of all three members.
const memberEnv = "COTERIE_KILLED_MEMBER"

// TestMember is a process of TestKilledMembersLoseNothing, and does nothing otherwise. It counts in a key of its own and
// prints each acknowledged number. When it reads a line, it stops counting. When it reads another one, it prints its state.
func TestMember(t *testing.T) {
	described := os.Getenv(memberEnv)
	if described == "" {
		t.Skip("for TestKilledMembersLoseNothing")
	}
	var number int
	var storage, dir string
	var addrs [3]string
	_, err := fmt.Sscan(described, &number, &storage, &dir, &addrs[0], &addrs[1], &addrs[2])
	require.NoError(t, err)
	cfg := coterie.Config{
		Name: fmt.Sprint("node", number), Addr: addrs[number], Advertise: addrs[number], Dir: dir, Storage: storages[storage],
		SnapshotEntries: 200, ElectionTimeout: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	for i, addr := range addrs {
		cfg.Founders = append(cfg.Founders, coterie.Founder{Name: fmt.Sprint("node", i), Addr: addr})
	}
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	defer n.Close()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		count(t, n, number, stop)
	}()
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	close(stop)
	<-stopped
	fmt.Println("stopped")
	in.Scan()
	require.NoError(t, n.Check(t.Context()))
	fmt.Print("state")
	for i := range addrs {
		fmt.Print(" ", counted(t, n, i))
	}
	kvs := get(t, n, "", coterie.WithPrefix())
	h, err := n.Hash(t.Context(), kvs.Revision)
	require.NoError(t, err)
	fmt.Println("", kvs.Revision, h.Hash)
	in.Scan() // until the other members have answered, too
}

// count counts in the key of a member. Each write requires the one before it. So a write that is applied late, after
// its process was killed, is not repeated.
func count(t *testing.T, n *coterie.Node, number int, stop <-chan struct{}) {
	i := counted(t, n, number)
	fmt.Println("from", i)
	key := fmt.Sprint("member", number)
	for {
		select {
		case <-stop:
			return
		default:
		}
		r := commit(t, n.Txn(t.Context()).If(coterie.Compare(coterie.Version(key), "=", int64(i))).Then(coterie.OpPut(key, strconv.Itoa(i+1))))
		if i++; !r.Succeeded {
			require.Equal(t, i, counted(t, n, number), "an earlier process has written this number and no other one")
		}
		fmt.Println("counted", i)
	}
}

// counted returns the number that a member has counted to.
func counted(t *testing.T, n *coterie.Node, number int) int {
	r := get(t, n, fmt.Sprint("member", number))
	if len(r.KVs) == 0 {
		return 0
	}
	i, err := strconv.Atoi(r.KVs[0].Value)
	require.NoError(t, err)
	require.EqualValues(t, i, r.KVs[0].Version, "each number is written once")
	return i
}

// Members of a cluster are killed, one or several at a time, while all of them write. Everything that was acknowledged is
// there, once, and all replicas are equal.
func TestKilledMembersLoseNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for storage := range storages {
		t.Run(storage, func(t *testing.T) { killMembers(t, storage, killsOr(4)) })
	}
}

// A killable is a member of a cluster of processes. The goroutine of the test owns it.
type killable struct {
	described    string
	process      *exec.Cmd
	in           io.WriteCloser
	lines        chan string // of the process; closed at its end
	acknowledged int         // the newest number that it has printed, in any process
}

// start starts the process of a member.
func (k *killable) start(t *testing.T) {
	t.Helper()
	k.process = exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestMember$")
	k.process.Env = append(os.Environ(), memberEnv+"="+k.described)
	k.process.Stderr = os.Stderr
	var err error
	k.in, err = k.process.StdinPipe()
	require.NoError(t, err)
	out, err := k.process.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, k.process.Start())
	lines := make(chan string, 1000)
	k.lines = lines
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
}

// see takes over a line of the process.
func (k *killable) see(t *testing.T, line string) {
	t.Helper()
	var i int
	switch {
	case scan(line, "from %d", &i):
		require.GreaterOrEqual(t, i, k.acknowledged)
		require.LessOrEqual(t, i, k.acknowledged+1, "at most one write was in flight")
		k.acknowledged = i
	case scan(line, "counted %d", &i):
		require.Equal(t, k.acknowledged+1, i)
		k.acknowledged = i
	default:
		require.Fail(t, "unexpected output", line)
	}
}

func scan(line, format string, args ...any) bool {
	n, err := fmt.Sscanf(line, format, args...)
	return err == nil && n == len(args)
}

// drain sees all lines that the process has printed so far, or all until its end.
func (k *killable) drain(t *testing.T, toEnd bool) {
	t.Helper()
	for {
		select {
		case line, more := <-k.lines:
			if !more {
				require.True(t, toEnd, "the process has ended")
				return
			}
			k.see(t, line)
			continue
		default:
		}
		if !toEnd {
			return
		}
		line, more := <-k.lines
		if !more {
			return
		}
		k.see(t, line)
	}
}

// await sees lines until the member has counted n further.
func (k *killable) await(t *testing.T, n int) {
	t.Helper()
	limit := time.After(time.Minute)
	for goal := k.acknowledged + n; k.acknowledged < goal; {
		select {
		case line, more := <-k.lines:
			require.True(t, more, "the process has ended")
			k.see(t, line)
		case <-limit:
			require.Fail(t, "the member does not count", k.described)
		}
	}
}

// killMembers kills members of a cluster until at least kills processes have ended.
func killMembers(t *testing.T, storage string, kills int) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir, addrs := t.TempDir(), freeAddrs(t, 3)
	var members [3]*killable
	for i := range members {
		members[i] = &killable{described: fmt.Sprintln(i, storage, filepath.Join(dir, strconv.Itoa(i)), addrs[0], addrs[1], addrs[2])}
		members[i].start(t)
	}
	for done := 0; done < kills; {
		// Writes go on before the next kills, so a majority has come back.
		members[random.IntN(3)].await(t, 1+random.IntN(100))
		<-time.After(time.Duration(random.IntN(3000)) * time.Microsecond)
		victims := random.Perm(3)[:[]int{1, 1, 1, 2, 3}[random.IntN(5)]]
		for _, i := range victims {
			require.NoError(t, members[i].process.Process.Kill())
		}
		for _, i := range victims {
			members[i].drain(t, true)
			require.Error(t, members[i].process.Wait(), "it was killed")
			done++
		}
		for _, m := range members {
			if m.process.ProcessState == nil {
				m.drain(t, false)
			}
		}
		<-time.After(time.Duration(random.IntN(300)) * time.Millisecond)
		for _, i := range victims {
			members[i].start(t)
		}
	}
	requireEqualMembers(t, members)
	t.Log(kills, "kills, counted to", members[0].acknowledged, members[1].acknowledged, members[2].acknowledged)
}

// requireEqualMembers stops the writes and checks that all members have the same state, with all that was acknowledged.
func requireEqualMembers(t *testing.T, members [3]*killable) {
	t.Helper()
	for _, m := range members {
		m.await(t, 1)
	}
	stopped, states := answersOf(t, members), answersOf(t, members)
	for _, m := range members {
		require.NoError(t, m.in.Close())
		require.NoError(t, m.process.Wait())
	}
	require.Equal(t, [3]string{"stopped", "stopped", "stopped"}, stopped)
	var found [3]int
	var rev int64
	var hash uint64
	require.True(t, scan(states[0], "state %d %d %d %d %d", &found[0], &found[1], &found[2], &rev, &hash), states[0])
	require.Equal(t, states[0], states[1])
	require.Equal(t, states[0], states[2])
	for i, m := range members {
		require.GreaterOrEqual(t, found[i], m.acknowledged)
		require.LessOrEqual(t, found[i], m.acknowledged+1)
	}
}

// answersOf sends each member a line, and returns their answers.
func answersOf(t *testing.T, members [3]*killable) (answers [3]string) {
	t.Helper()
	for _, m := range members {
		_, err := fmt.Fprintln(m.in)
		require.NoError(t, err)
	}
	for i, m := range members {
		for line := range m.lines {
			if strings.HasPrefix(line, "stopped") || strings.HasPrefix(line, "state") {
				answers[i] = line
				break
			}
			m.see(t, line)
		}
	}
	return answers
}

// freeAddrs returns addresses of this host with free ports.
func freeAddrs(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}
