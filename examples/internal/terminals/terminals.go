// SPDX-License-Identifier: Apache-2.0

// Package terminals runs an example for its test as the example's documentation says: as processes, each
// in a terminal of its own. The test types lines into the terminals, and reads the output.
package terminals

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds each wait of a test. It is generous, for busy machines.
const patience = time.Minute

// Terminals run one program. Its output goes to the test's log, so it is shown when the test fails. Call
// all methods on the test's goroutine; each ends the test if it fails.
//
// mu guards lines and changed, which the goroutines of the processes change. The test's goroutine owns the
// other fields.
type Terminals struct {
	t         *testing.T
	program   string
	dir       string            // contains the directories of all nodes
	addrs     map[string]string // of the nodes of Trio, by name
	processes map[string]*process

	mu      sync.Mutex
	lines   []Line
	changed chan struct{} // closed and replaced with each line and each end of a process
}

// A Line was printed by a process.
type Line struct {
	From   string   // the terminal
	Text   string   // without the newline
	Fields []string // the match and the groups of the pattern, if there was one
	from   *process
}

// Open builds the program of the test's package. It skips the test under -short, and on systems that do
// not end processes by signals.
func Open(t *testing.T) *Terminals {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds the program and runs it as processes")
	}
	if runtime.GOOS == "windows" {
		t.Skip("it ends processes by signals")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	args := []string{"build", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race") // then a race makes the program exit with another status than 0
	}
	if out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return &Terminals{
		t: t, program: program, dir: dir, addrs: map[string]string{}, processes: map[string]*process{},
		changed: make(chan struct{}),
	}
}

// Trio builds the program, and starts the nodes a, b and c on loopback, each with a directory.
func Trio(t *testing.T) *Terminals {
	t.Helper()
	s := Open(t)
	s.settle("a", "b", "c")
	s.Start("a", "b", "c")
	return s
}

// Start starts nodes of Trio, for the first time or again, with their previous directories.
func (s *Terminals) Start(names ...string) {
	s.t.Helper()
	var founders []string
	for _, name := range []string{"a", "b", "c"} {
		founders = append(founders, name+"="+s.addrs[name])
	}
	for _, name := range names {
		s.Run(name, "-name", name, "-addr", s.addrs[name], "-dir", filepath.Join(s.dir, name), "-founders", strings.Join(founders, ","),
			"-for", "5m") // if this process is killed, no other one ends that one
	}
}

// Run starts a process in a terminal in which none runs. The process ends with the test.
func (s *Terminals) Run(terminal string, args ...string) {
	s.t.Helper()
	if p := s.processes[terminal]; p != nil && !p.ended() {
		s.t.Fatalf("a process runs in %s", terminal)
	}
	p, err := s.start(terminal, args)
	if err != nil {
		s.t.Fatal(err)
	}
	s.processes[terminal] = p
	s.t.Cleanup(p.end)
}

// Type types a line.
func (s *Terminals) Type(terminal, line string) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.running(terminal).stdin, line); err != nil {
		s.t.Fatal(err)
	}
}

// Await waits for a line that matches a pattern. It looks at the present processes of the named terminals,
// or of all if none is named, and for each process begins after the line that it returned last.
func (s *Terminals) Await(pattern string, terminals ...string) Line {
	s.t.Helper()
	want, from, over := regexp.MustCompile(pattern), s.named(terminals), time.After(patience)
	for {
		// Check which processes have ended before looking at the lines: no further lines come from them.
		alive := slices.ContainsFunc(from, func(p *process) bool { return !p.ended() })
		s.mu.Lock()
		changed := s.changed
		for i, l := range s.lines {
			if !slices.Contains(from, l.from) || i < l.from.next {
				continue
			}
			if l.Fields = want.FindStringSubmatch(l.Text); l.Fields != nil {
				l.from.next = i + 1
				s.mu.Unlock()
				return l
			}
		}
		s.mu.Unlock()
		if !alive {
			s.t.Fatalf("no line like %q was printed before the process ended", pattern)
		}
		select {
		case <-changed:
		case <-over:
			s.t.Fatalf("no line like %q was printed", pattern)
		}
	}
}

// Lines returns all lines of all processes that match a pattern, in the order in which they came.
func (s *Terminals) Lines(pattern string) (found []Line) {
	want := regexp.MustCompile(pattern)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if l.Fields = want.FindStringSubmatch(l.Text); l.Fields != nil {
			found = append(found, l)
		}
	}
	return found
}

// Kill ends processes as a crash does, and returns when they have ended.
func (s *Terminals) Kill(terminals ...string) {
	s.t.Helper()
	for _, name := range terminals {
		p := s.running(name)
		if err := p.cmd.Process.Kill(); err != nil {
			s.t.Fatal(err)
		}
		s.ended(p)
	}
}

// Signal sends a signal to one process.
func (s *Terminals) Signal(signal os.Signal, terminal string) {
	s.t.Helper()
	if err := s.running(terminal).cmd.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// Stop sends a signal to the named processes, or to all that run, and waits as Wait does.
func (s *Terminals) Stop(signal os.Signal, terminals ...string) {
	s.t.Helper()
	if len(terminals) == 0 {
		for name, p := range s.processes {
			if !p.ended() {
				terminals = append(terminals, name)
			}
		}
	}
	for _, name := range terminals {
		s.Signal(signal, name)
	}
	s.Wait(terminals...)
}

// Wait waits until the named processes have ended, each with exit status 0.
func (s *Terminals) Wait(terminals ...string) {
	s.t.Helper()
	for _, p := range s.named(terminals) {
		if s.ended(p); p.outcome != nil {
			s.t.Fatalf("%s: %v", p.name, p.outcome)
		}
	}
}

// ended waits until a process has ended.
func (s *Terminals) ended(p *process) {
	s.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		s.t.Fatalf("%s does not end", p.name)
	}
}

// named returns the processes of terminals, or all that run if none is named.
func (s *Terminals) named(terminals []string) (all []*process) {
	s.t.Helper()
	for name, p := range s.processes {
		if slices.Contains(terminals, name) || len(terminals) == 0 && !p.ended() {
			all = append(all, p)
		}
	}
	if len(all) == 0 || len(all) < len(terminals) {
		s.t.Fatalf("not all of %v were started", terminals)
	}
	return all
}

func (s *Terminals) running(terminal string) *process {
	s.t.Helper()
	p := s.named([]string{terminal})[0]
	if p.ended() {
		s.t.Fatalf("%s has ended", terminal)
	}
	return p
}

// printed records a line and wakes Await.
func (s *Terminals) printed(p *process, text string) {
	s.t.Logf("%s | %s", p.name, text)
	s.mu.Lock()
	s.lines = append(s.lines, Line{From: p.name, Text: text, from: p})
	s.mu.Unlock()
	s.change()
}

// change wakes Await.
func (s *Terminals) change() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// settle gives nodes addresses on loopback that are free now. Their ports are below those that systems
// choose for connections, so that no connection takes the port of a process that is down.
func (s *Terminals) settle(names ...string) {
	s.t.Helper()
	for tries := 0; len(s.addrs) < len(names); tries++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(20000))))
		if err == nil {
			defer l.Close() // when all nodes have an address
			s.addrs[names[len(s.addrs)]] = l.Addr().String()
		} else if tries == 100 {
			s.t.Fatal(err)
		}
	}
}
