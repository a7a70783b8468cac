// SPDX-License-Identifier: Apache-2.0

package compat

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A program is compat/node, built with some version of coterie.
type program string

// current builds the program with this version.
func current(t *testing.T) program {
	t.Helper()
	return build(t, ".", "./node")
}

// earlier builds the program with the version of a commit, from the history of this repository.
func earlier(t *testing.T, commit string) program {
	t.Helper()
	top := strings.TrimSpace(output(t, exec.CommandContext(t.Context(), "git", "rev-parse", "--show-toplevel")))
	source := t.TempDir()
	archive := filepath.Join(source, "archive.tar")
	output(t, exec.CommandContext(t.Context(), "git", "-C", top, "archive", "-o", archive, commit))
	output(t, exec.CommandContext(t.Context(), "tar", "-xf", archive, "-C", source))
	config, err := os.ReadFile(filepath.Join(source, "config.go"))
	require.NoError(t, err)
	founders, metadata := "node/founders.go", "node/metadata.go"
	if strings.Contains(string(config), "Peers []Peer") {
		founders = "node/testdata/peers.go"
	}
	if !strings.Contains(string(config), "Metadata map") {
		metadata = "node/testdata/nometadata.go"
	}
	users := "node/users.go"
	if _, err := os.Stat(filepath.Join(source, "user.go")); err != nil {
		users = "node/testdata/nousers.go"
	}
	require.NoError(t, os.MkdirAll(filepath.Join(source, "cmd/compat"), 0o755))
	for _, name := range []string{"node/main.go", founders, metadata, users} {
		file, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(source, "cmd/compat", filepath.Base(name)), file, 0o644))
	}
	return build(t, source, "./cmd/compat")
}

// requireHistory skips a test unless the repository has a commit.
func requireHistory(t *testing.T, commit string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "git", "cat-file", "-e", commit+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("needs git, and commit %s in the history: fetch without --depth (%v: %s)", commit, err, out)
	}
}

func build(t *testing.T, dir, pkg string) program {
	t.Helper()
	name := filepath.Join(t.TempDir(), "node")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", name, pkg)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	output(t, cmd)
	return program(name)
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%v: %s", cmd.Args, out)
	return string(out)
}

// A site is the addresses and the directory of a node.
type site struct {
	name, addr, advertise, dir string
	founders                   []string
}

// sites returns the sites of a cluster of three, each with a directory below dir. The nodes advertise the
// addresses that via returns.
func sites(t *testing.T, dir string, via func(addr string) string) (all []*site) {
	t.Helper()
	var founders []string
	for _, name := range []string{"a", "b", "c"} {
		addr := free(t)
		s := &site{name: name, addr: addr, advertise: via(addr), dir: filepath.Join(dir, name)}
		founders = append(founders, name+"="+s.advertise)
		all = append(all, s)
	}
	for _, s := range all {
		s.founders = founders
	}
	return all
}

// free returns an address that is not in use.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// A process runs a program at a site.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	err *strings.Builder

	mu      sync.Mutex
	number  int
	waiting map[string]chan string
	ended   bool
}

func (p program) start(t *testing.T, s *site) *process {
	t.Helper()
	proc := &process{
		cmd: exec.CommandContext(t.Context(), string(p), s.name, s.addr, s.advertise, s.dir, strings.Join(s.founders, ",")),
		err: &strings.Builder{}, waiting: map[string]chan string{},
	}
	proc.cmd.Stderr = proc.err
	in, err := proc.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := proc.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, proc.cmd.Start())
	proc.in = in
	go proc.read(out)
	return proc
}

func (p *process) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		number, answer, _ := strings.Cut(lines.Text(), " ")
		p.mu.Lock()
		if c := p.waiting[number]; c != nil {
			c <- answer
			delete(p.waiting, number)
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, c := range p.waiting {
		c <- "error the process has ended"
	}
}

// do runs a command and returns the answer.
func (p *process) do(ctx context.Context, command string) (string, error) {
	c := make(chan string, 1)
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return "", fmt.Errorf("the process has ended")
	}
	p.number++
	p.waiting[fmt.Sprint(p.number)] = c
	_, err := fmt.Fprintln(p.in, p.number, command)
	p.mu.Unlock()
	if err != nil {
		return "", err
	}
	select {
	case answer := <-c:
		if text, failed := strings.CutPrefix(answer, "error "); failed {
			return "", fmt.Errorf("%s", text)
		}
		return answer, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// stop tells the process to close its node, and waits for that.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	err := p.in.Close()
	p.mu.Unlock()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Wait(), p.err)
}

func (p *process) must(t *testing.T, command string) string {
	t.Helper()
	answer, err := p.do(t.Context(), command)
	require.NoError(t, err, "%s: %s", command, p.err)
	return answer
}
