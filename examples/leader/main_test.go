// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A run is one process of the example. Its lines carry it, so that what a killed one said is not
// taken for what its successor says.
type run struct {
	name string
	cmd  *exec.Cmd
}

type line struct {
	from *run
	text string
}

// A trio runs the example as three processes.
type trio struct {
	t       *testing.T
	ctx     context.Context // kills what still runs when it ends
	program string
	dir     string
	addrs   map[string]string
	lines   chan line
	leads   *run // who said so last
}

func (p *trio) start(name string) *run {
	p.t.Helper()
	var peers []string
	for name, addr := range p.addrs {
		peers = append(peers, name+"="+addr)
	}
	r := &run{name, exec.CommandContext(p.ctx, p.program, "-name", name, "-addr", p.addrs[name],
		"-dir", filepath.Join(p.dir, name), "-peers", strings.Join(peers, ","), "-for", "2m")}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	r.cmd.Stderr = r.cmd.Stdout
	if err := r.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case p.lines <- line{r, s.Text()}:
			case <-p.ctx.Done():
			}
		}
	}()
	p.t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // it may have been killed already
		<-read
		_ = r.cmd.Wait() // it was killed
	})
	return r
}

// await reads lines until one matches that is from a run that fits, and returns that run and the
// number at the end of the line.
func (p *trio) await(pattern string, fits func(*run) bool) (*run, int) {
	p.t.Helper()
	want := regexp.MustCompile(pattern)
	for {
		select {
		case l := <-p.lines:
			p.t.Log(l.text)
			if strings.Contains(l.text, " leads, with ") {
				p.leads = l.from
			}
			if !fits(l.from) || !want.MatchString(l.text) {
				continue
			}
			token, err := strconv.Atoi(l.text[strings.LastIndexByte(l.text, ' ')+1:])
			if err != nil {
				p.t.Fatal(err)
			}
			return l.from, token
		case <-p.ctx.Done():
			p.t.Fatalf("no line like %q came", pattern)
		}
	}
}

// freeAddr returns an address on loopback that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// The leader's process is killed: another leads, and the killed one comes back from its directory.
func TestKilledLeaderIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the program and runs it as three processes")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "leader.exe")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := &trio{t: t, ctx: ctx, program: program, dir: dir, addrs: map[string]string{}, lines: make(chan line)}
	for _, name := range []string{"a", "b", "c"} {
		p.addrs[name] = freeAddr(t)
	}
	for name := range p.addrs {
		p.start(name)
	}

	// All three have to be there: one that the cluster has never heard of does not count when another
	// is gone.
	leads, knows := ` leads, with fencing token \d+$`, ` (follows \w+, which has|leads, with) fencing token \d+$`
	var first *run
	var token int
	seen := map[*run]bool{}
	for len(seen) < 3 {
		r, n := p.await(knows, func(r *run) bool { return !seen[r] })
		if seen[r] = true; p.leads == r {
			first, token = r, n
		}
	}
	if first == nil {
		t.Fatal("nobody leads")
	}
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, next := p.await(leads, func(r *run) bool { return r != first })
	if next <= token {
		t.Fatalf("token %d follows token %d", next, token)
	}

	_ = first.cmd.Wait() // it reports the kill; the directory is free now
	again := p.start(first.name)
	p.await(knows, func(r *run) bool { return r == again })
}
