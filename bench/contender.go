// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/coterie-kv/coterie/bench/harness"
)

// A contender is a system in a certain setup.
type contender struct {
	label   string        // in the output
	setup   harness.Setup // without a directory
	program string        // the directory of the system's program below rivals; empty for this program
}

// The contenders of most rows: three members with the default configuration.
var (
	onEtcd    = contender{label: "etcd", setup: harness.Setup{System: "etcd", Members: 3}}
	onCoterie = contender{label: "coterie", setup: harness.Setup{System: "coterie", Members: 3}}
)

// with returns the contender with a changed setup.
func (c contender) with(change func(*harness.Setup)) contender {
	change(&c.setup)
	return c
}

// alone is a change of a setup: a cluster of one member.
func alone(s *harness.Setup) { s.Members = 1 }

// endpoints is a change of a setup: each member serves gRPC.
func endpoints(s *harness.Setup) { s.Endpoints = true }

// openers open the systems of this program.
var openers = map[string]harness.Opener{
	"etcd": openEtcd, "coterie": openCoterie, "bare": openBare, "empty": harness.OpenEmpty,
}

// openSystem opens a system of this program.
func openSystem(ctx context.Context, s harness.Setup) (*harness.System, error) {
	open, ok := openers[s.System]
	if !ok {
		return nil, fmt.Errorf("bench has no system with the name %q", s.System)
	}
	return open(ctx, s)
}

// envChild is set in the environment of a child process of this program.
const envChild = "COTERIE_BENCH_CHILD"

// isChild reports whether this process is a child.
func isChild() bool { return os.Getenv(envChild) != "" }

// runChild serves the parent process, and returns the exit status.
func runChild() int { return harness.Serve(os.Stdin, os.Stdout, openSystem) }

// start starts the process of a contender. Its data goes below dir, and its program to bin if it is not this one.
func (c contender) start(ctx context.Context, dir, bin string) (*harness.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), envChild+"=1")
	if c.program != "" {
		program, err := c.build(ctx, bin)
		if err != nil {
			return nil, err
		}
		cmd = exec.CommandContext(ctx, program)
	}
	cmd.Stderr = os.Stderr
	s := c.setup
	if s.Dir, err = os.MkdirTemp(dir, "system"); err != nil {
		return nil, err
	}
	return harness.Start(cmd, s)
}

// build builds the program of a contender, unless bin has it, and returns its file.
func (c contender) build(ctx context.Context, bin string) (string, error) {
	file := filepath.Join(bin, c.program)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", file, ".")
	cmd.Dir = filepath.Join("rivals", c.program)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", c.program, err, out)
	}
	return file, nil
}
