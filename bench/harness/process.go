// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// A Process is a child process with a system, as its parent sees it. One goroutine uses it.
type Process struct {
	Addrs      []string // of the endpoints of the members, that of the leader first
	Durability string

	cmd *exec.Cmd
	in  io.Closer // the standard input of the process
	out *json.Encoder
	ans *json.Decoder
}

// Start starts a child process and opens a system in it. The command has neither standard input nor output yet.
func Start(cmd *exec.Cmd, s Setup) (*Process, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, in: in, out: json.NewEncoder(in), ans: json.NewDecoder(out)}
	a, err := p.ask(Question{Open: &s})
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.Addrs, p.Durability = a.Addrs, a.Durability
	return p, nil
}

func (p *Process) ask(q Question) (a Answer, err error) {
	if err := p.out.Encode(q); err != nil {
		return a, err
	}
	if err := p.ans.Decode(&a); err != nil {
		return a, fmt.Errorf("the process of the system: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// Meter returns the Meter of the process.
func (p *Process) Meter() Meter {
	return Meter{Apart: true, Usage: func() (Usage, error) {
		a, err := p.ask(Question{})
		return a.Usage, err
	}}
}

// Prepare prepares a workload in the process.
func (p *Process) Prepare(l Load) error {
	_, err := p.ask(Question{Prepare: &l})
	return err
}

// Run runs the workload that was prepared.
func (p *Process) Run(d time.Duration) (Sample, error) {
	a, err := p.ask(Question{Run: d})
	if err == nil && a.Sample == nil {
		err = errors.New("the process of the system answered without a sample")
	}
	if err != nil {
		return Sample{}, err
	}
	return *a.Sample, nil
}

// Profile begins profiles of the process, in the files path.cpu and path.alloc.
func (p *Process) Profile(path string) (stop func() error, err error) {
	if _, err := p.ask(Question{Profile: path}); err != nil {
		return nil, err
	}
	return func() error {
		_, err := p.ask(Question{Stop: true})
		return err
	}, nil
}

// Close closes the system, and waits for the end of the process.
func (p *Process) Close() error { return errors.Join(p.in.Close(), p.cmd.Wait()) }

// Main is the main function of a program that has nothing but systems. Without arguments it serves a parent process.
// With arguments it runs one workload by hand and prints the sample.
func Main(ctx context.Context, args []string, in io.Reader, out io.Writer, open Opener) int {
	if len(args) == 0 {
		return Serve(in, out, open)
	}
	if err := byHand(ctx, args, out, open); err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	return 0
}
