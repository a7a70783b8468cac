// SPDX-License-Identifier: Apache-2.0

package terminals

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A process is one run of the program.
type process struct {
	name    string // of its terminal
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	next    int           // index of the first of Terminals.lines that Await has not returned or skipped
	done    chan struct{} // closed when the process has ended and all of its output is read
	outcome error         // of the process; set before done is closed
}

// start starts a process, and a goroutine that reads its output, both streams as one, until it has ended.
func (s *Terminals) start(name string, args []string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(s.program, args...), done: make(chan struct{})}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	s.t.Logf("%s is started: process %d, %s", name, p.cmd.Process.Pid, strings.Join(args, " "))
	go func() {
		for lines := bufio.NewReader(out); ; {
			text, err := lines.ReadString('\n')
			if text != "" {
				s.printed(p, strings.TrimSuffix(text, "\n"))
			}
			if err != nil {
				break
			}
		}
		p.outcome = p.cmd.Wait()
		s.t.Logf("%s has ended: %v", name, p.cmd.ProcessState)
		close(p.done)
		s.change()
	}()
	return p, nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// end ends a process, however the test ends. It sends a signal first, because some processes then end the
// processes that they have started. A stopped process reacts only to the kill.
func (p *process) end() {
	if p.ended() {
		return
	}
	_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended just now
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}
