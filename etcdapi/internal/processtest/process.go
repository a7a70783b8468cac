// SPDX-License-Identifier: Apache-2.0

// Package processtest runs programs for tests.
package processtest

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long a Process may take to print a text, or to end.
const patience = 30 * time.Second

// A Process is a program that runs, or has run.
type Process struct {
	Cmd    *exec.Cmd
	t      testing.TB
	output output
	done   chan struct{} // closed when the process has ended
}

// An output collects the output of a process. Its methods may be called concurrently.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Start starts a command and collects its output. At the end of the test it kills the process, and logs the output if
// the test has failed.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, t: t, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	require.NoError(t, cmd.Start())
	go func() {
		_ = cmd.Wait() // the tests look at ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s\n%s", cmd, p.Output())
		}
	})
	return p
}

// Output returns everything that the process has printed so far.
func (p *Process) Output() string { return p.output.String() }

// Prints waits until the process has printed a text.
func (p *Process) Prints(text string) {
	p.t.Helper()
	ended := false
	require.Eventually(p.t, func() bool {
		select {
		case <-p.done: // the output is complete
			ended = true
		default:
		}
		return strings.Contains(p.Output(), text) || ended
	}, patience, 5*time.Millisecond, "no line with %q", text)
	require.Contains(p.t, p.Output(), text)
}

// Exits waits until the process has ended, and returns its exit code: -1 after a signal.
func (p *Process) Exits() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		require.Fail(p.t, "the process does not end")
	}
	return p.Cmd.ProcessState.ExitCode()
}

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(s os.Signal) { _ = p.Cmd.Process.Signal(s) }

// Kill ends the process like a crash, and waits for it.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Kill()
	<-p.done
}
