// SPDX-License-Identifier: Apache-2.0

//go:build unix

package coterie

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The environment of TestKilledLeaders and its processes.
const (
	killedNode  = "COTERIE_KILLED_NODE"
	killedDir   = "COTERIE_KILLED_DIR"
	killedAddrs = "COTERIE_KILLED_ADDRS"
	// kills is how many leaders the test kills, and killedLogs a directory for the logs of the nodes.
	kills      = "COTERIE_KILLS"
	killedLogs = "COTERIE_KILLED_LOGS"
)

// TestKilledLeaders kills the leader of three processes with default settings, as often as the environment says. It
// logs how long writes were interrupted and how many leaders were elected.
func TestKilledLeaders(t *testing.T) {
	rounds := 1
	if given := os.Getenv(kills); given != "" {
		var err error
		rounds, err = strconv.Atoi(given)
		require.NoError(t, err)
	} else if testing.Short() {
		t.Skip("starts processes, and waits by the real clock")
	}
	addrs, dir := freeAddrs(t, 3), t.TempDir()
	var all []*killedProcess
	for i := range addrs {
		p := &killedProcess{t: t, i: i, dir: dir, addrs: addrs}
		p.start()
		t.Cleanup(func() { p.kill() })
		all = append(all, p)
	}
	var gaps []time.Duration
	again, split := 0, 0
	for round := range rounds {
		for _, p := range all {
			p.await("ready", func() bool { return p.ready })
		}
		leader := leadingProcess(all)
		pause(time.Duration(round%10) * 20 * time.Millisecond)
		term := leader.term()
		killed := leader.kill()
		gap := time.Minute
		for _, p := range all {
			if p != leader {
				p.await("writes", func() bool { return p.begun.After(killed) })
				gap = min(gap, p.first(killed).Sub(killed))
			}
		}
		pause(2 * time.Second) // time in which a leader might lose the lead again
		next := leadingProcess(all)
		now, terms := next.term(), 0
		for _, p := range all {
			terms += p.terms(term)
		}
		t.Logf("round %d: node %d was killed in term %d, node %d leads in term %d, after %v, %d elected",
			round, leader.i, term, next.i, now, gap, terms)
		if terms > 1 {
			again++
		}
		if now > term+1 {
			split++
		}
		gaps = append(gaps, gap)
		leader.start()
	}
	slices.Sort(gaps)
	at := func(q float64) time.Duration { return gaps[int(q*float64(len(gaps)-1))].Round(time.Millisecond) }
	t.Logf("%d kills: least %v, median %v, nine tenths %v, most %v; %d with a second leader, %d with more than one term",
		rounds, at(0), at(0.5), at(0.9), at(1), again, split)
}

// A killedProcess is a node in a process of its own, with the reports of that process.
type killedProcess struct {
	t      *testing.T
	i      int
	dir    string
	addrs  []string
	cmd    *exec.Cmd
	output sync.WaitGroup // done when the process's output has ended

	mu    sync.Mutex
	ready bool
	leads bool
	led   uint64     // the newest term that it led
	all   []uint64   // every term that it led
	begun time.Time  // the begin of the newest acknowledged write
	wrote [][2]int64 // the begin and the end of each write
}

func (p *killedProcess) start() {
	p.mu.Lock()
	p.ready, p.leads = false, false
	p.mu.Unlock()
	p.cmd = exec.Command(os.Args[0], "-test.run", "^TestKilledNode$", "-test.timeout", "0")
	p.cmd.Env = append(os.Environ(), killedNode+"="+strconv.Itoa(p.i), killedDir+"="+filepath.Join(p.dir, strconv.Itoa(p.i)),
		killedAddrs+"="+strings.Join(p.addrs, ","))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, p.cmd.Start())
	p.output.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.note(strings.Fields(lines.Text()))
		}
	})
}

func (p *killedProcess) note(words []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(words[i], 10, 64)
		return n
	}
	switch {
	case len(words) == 0:
	case words[0] == "ready":
		p.ready = true
	case words[0] == "leads" && len(words) == 2:
		p.leads, p.led = true, uint64(number(1))
		p.all = append(p.all, p.led)
	case words[0] == "follows":
		p.leads = false
	case words[0] == "wrote" && len(words) == 3:
		p.wrote = append(p.wrote, [2]int64{number(1), number(2)})
		p.begun = time.Unix(0, number(1))
	}
}

// kill ends the process as a crash does, reads the rest of its output, and returns the time of the kill.
func (p *killedProcess) kill() time.Time {
	_ = p.cmd.Process.Kill()
	killed := time.Now()
	p.output.Wait()
	_ = p.cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leads = false
	return killed
}

// term returns the newest term that the node has led.
func (p *killedProcess) term() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.led
}

func (p *killedProcess) await(what string, done func() bool) {
	p.t.Helper()
	for begin := time.Now(); time.Since(begin) < time.Minute; pause(5 * time.Millisecond) {
		p.mu.Lock()
		yes := done()
		p.mu.Unlock()
		if yes {
			return
		}
	}
	require.FailNow(p.t, "waited for a minute", "node %d: %s", p.i, what)
}

// first returns the end of the first write that was begun after a moment.
func (p *killedProcess) first(after time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.wrote {
		if w[0] > after.UnixNano() {
			return time.Unix(0, w[1])
		}
	}
	return time.Unix(1<<40, 0)
}

// terms returns the number of terms after the given one in which the node has led.
func (p *killedProcess) terms(after uint64) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, term := range p.all {
		if term > after {
			n++
		}
	}
	return n
}

// leadingProcess waits for a process that leads in the newest term.
func leadingProcess(all []*killedProcess) (leader *killedProcess) {
	for begin := time.Now(); leader == nil && time.Since(begin) < time.Minute; pause(5 * time.Millisecond) {
		newest := uint64(0)
		for _, p := range all {
			p.mu.Lock()
			if p.leads && p.led > newest {
				leader, newest = p, p.led
			}
			p.mu.Unlock()
		}
	}
	require.NotNil(all[0].t, leader, "no node leads")
	return leader
}

// TestKilledNode is a process that TestKilledLeaders starts, and does nothing otherwise. It writes, and reports each
// write and each change of leader.
func TestKilledNode(t *testing.T) {
	i, err := strconv.Atoi(os.Getenv(killedNode))
	if err != nil {
		t.Skip("for TestKilledLeaders")
	}
	var founders []Founder
	for j, addr := range strings.Split(os.Getenv(killedAddrs), ",") {
		founders = append(founders, Founder{Name: fmt.Sprint("n", j), Addr: addr})
	}
	cfg := Config{
		Dir: os.Getenv(killedDir), Name: founders[i].Name, Addr: founders[i].Addr, Founders: founders,
		Logger: slog.New(slog.DiscardHandler),
	}
	if dir := os.Getenv(killedLogs); dir != "" {
		file, err := os.OpenFile(filepath.Join(dir, founders[i].Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		require.NoError(t, err)
		cfg.Logger = slog.New(slog.NewTextHandler(file, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	n, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	reports := make(chan string, 100)
	go func() {
		for lead := range n.ClusterLeaders(context.Background()) {
			if lead.Self {
				reports <- fmt.Sprint("leads ", lead.Term)
			} else {
				reports <- "follows"
			}
		}
	}()
	go func() {
		if err := n.Ready(context.Background()); err != nil {
			panic(err)
		}
		reports <- "ready"
		for {
			begin := time.Now()
			if _, err := n.Put(context.Background(), founders[i].Name, ""); err != nil {
				panic(err)
			}
			reports <- fmt.Sprint("wrote ", begin.UnixNano(), " ", time.Now().UnixNano())
			pause(5 * time.Millisecond)
		}
	}()
	for line := range reports {
		fmt.Println(line)
	}
}
