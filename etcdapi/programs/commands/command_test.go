// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A result is the outcome of a command.
type result struct {
	stdout, stderr string
	code           int // -1: ended by a signal
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d, stdout:\n%sstderr:\n%s", r.code, r.stdout, r.stderr)
}

// A process is a command that runs.
type process struct {
	cmd            *exec.Cmd
	args           []string
	limit          time.Duration // of wait
	lock           sync.Mutex    // guards stdout, which the process writes while it runs
	stdout, stderr bytes.Buffer
}

// Write receives the standard output.
func (p *process) Write(b []byte) (int, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	return p.stdout.Write(b)
}

func (p *process) printed() string {
	p.lock.Lock()
	defer p.lock.Unlock()
	return p.stdout.String()
}

// start starts etcdctl on a store.
func (s *store) start(t testing.TB, stdin string, args ...string) *process {
	t.Helper()
	return run(t, strings.NewReader(stdin), etcdctl, s.complete(t, args)...)
}

// complete returns the arguments of a command of etcdctl, with the flags that all commands on a store have.
func (s *store) complete(t testing.TB, args []string) []string {
	t.Helper()
	full := append([]string{"--command-timeout=20s"}, s.flags...)
	own, _, _ := strings.Cut(strings.Join(args, "\n"), "\n--\n") // the arguments after -- are those of another command
	if !strings.Contains(own, "--endpoints=") {
		full = append(full, "--endpoints="+s.endpoints[0])
	}
	for _, a := range args {
		full = append(full, s.fill(t, a))
	}
	return full
}

// run starts a program in a directory of its own.
func run(t testing.TB, stdin io.Reader, program string, args ...string) *process {
	t.Helper()
	p := prepare(t, stdin, program, args...)
	p.begin(t)
	return p
}

// prepare returns a process that has not begun.
func prepare(t testing.TB, stdin io.Reader, program string, args ...string) *process {
	p := &process{cmd: exec.Command(program, args...), args: args, limit: 40 * time.Second}
	p.cmd.Dir = t.TempDir()
	p.cmd.Stdin = stdin
	p.cmd.Stdout, p.cmd.Stderr = p, &p.stderr
	return p
}

func (p *process) begin(t testing.TB) {
	t.Helper()
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
}

// waitFor waits until the process has printed a text a number of times.
func (p *process) waitFor(t testing.TB, text string, times int) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	limit := time.After(20 * time.Second)
	for strings.Count(p.printed(), text) < times {
		select {
		case <-poll.C:
		case <-limit:
			t.Errorf("%v did not print %q: %s", p.args, text, p.printed())
			return
		}
	}
}

// interrupt sends the signal of the terminal's Ctrl-C.
func (p *process) interrupt(t testing.TB) {
	require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
}

// wait waits until the process has ended.
func (p *process) wait(t testing.TB) result {
	t.Helper()
	slow := time.AfterFunc(p.limit, func() { _ = p.cmd.Process.Kill() })
	defer slow.Stop()
	var status *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &status) {
		require.NoError(t, err)
	}
	return result{p.printed(), p.stderr.String(), p.cmd.ProcessState.ExitCode()}
}

// A mask replaces a text that always differs.
type mask struct {
	pattern *regexp.Regexp
	by      string
}

func masks(pairs ...string) (out []mask) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, mask{regexp.MustCompile(pairs[i]), pairs[i+1]})
	}
	return out
}

// always are the masks of every command: terms, and the widths of columns and IDs.
var always = masks(`"raft_term":\d+`, `"raft_term":TERM`, `"RaftTerm" : \d+`, `"RaftTerm" : TERM`, `(Member|cluster) +`, "$1 ", `─+`, `─`, ` *│ *`, `│`)

// masked returns a result without the texts that always differ.
func (s *store) masked(r result, more []mask) result {
	r.stdout, r.stderr = s.maskText(r.stdout, more), s.maskText(withoutTimes(r.stderr), more)
	return r
}

func (s *store) maskText(text string, more []mask) string {
	for i := 0; i < len(s.masks); i += 2 {
		text = regexp.MustCompile(`\b`+regexp.QuoteMeta(s.masks[i])+`\b`).ReplaceAllString(text, s.masks[i+1])
	}
	for _, m := range append(always, more...) {
		text = m.pattern.ReplaceAllString(text, m.by)
	}
	return text
}

// withoutTimes reduces the lines of etcdctl's log to message and error. It drops the lines about calls that the end
// of a command has cancelled, because they depend on a race, and the lines in which etcdutl reports its progress.
func withoutTimes(stderr string) string {
	var out strings.Builder
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, "\tinfo\t") {
			continue
		}
		var entry struct{ Level, Msg, Method, Error string }
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &entry) == nil {
			if strings.Contains(entry.Error, "context canceled") {
				continue
			}
			line = fmt.Sprintln("log:", entry.Level, entry.Msg, entry.Method, entry.Error)
		}
		out.WriteString(line)
	}
	return out.String()
}
