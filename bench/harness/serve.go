// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"syscall"
	"time"
)

// startTimeout is how long a system may take to open.
const startTimeout = time.Minute

// An Opener opens a system.
type Opener func(ctx context.Context, s Setup) (*System, error)

// Serve answers the questions of a parent process until its input ends. Then it closes the system and returns the exit
// status of the process.
func Serve(in io.Reader, out io.Writer, open Opener) int {
	c := child{open: open}
	questions, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var q Question
		if questions.Decode(&q) != nil {
			break // the end of the input
		}
		a, err := c.answer(context.Background(), q)
		if err != nil {
			a.Error = err.Error()
		}
		a.Usage = Used()
		if answers.Encode(a) != nil {
			break
		}
	}
	if err := c.close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// openAttempts is how often a system is opened while others take its addresses: see FreeAddrs.
const openAttempts = 3

// openAnew opens a system. If another process has taken one of its addresses in between, it opens it again, with other
// addresses and in another directory.
func openAnew(ctx context.Context, open Opener, s Setup) (sys *System, err error) {
	dir := s.Dir
	for attempt := range openAttempts {
		if dir != "" {
			s.Dir = filepath.Join(dir, strconv.Itoa(attempt))
			if err := os.MkdirAll(s.Dir, 0o700); err != nil {
				return nil, err
			}
		}
		if sys, err = open(ctx, s); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return sys, err
}

// A child is a process with a system. One goroutine uses it.
type child struct {
	open     Opener
	sys      *System
	job      Job
	profiles profiler
}

func (c *child) answer(ctx context.Context, q Question) (a Answer, err error) {
	switch {
	case q.Open != nil:
		opening, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		if c.sys, err = openAnew(opening, c.open, *q.Open); err != nil {
			return a, err
		}
		a.Addrs, a.Durability = c.sys.Addrs, c.sys.Durability
		return a, nil
	case c.sys == nil && (q.Prepare != nil || q.Run > 0):
		return a, errors.New("no system was opened")
	case q.Prepare != nil:
		if err := c.closeJob(); err != nil {
			return a, err
		}
		c.job, err = Prepare(ctx, c.sys, *q.Prepare)
		return a, err
	case q.Run > 0 && c.job == nil:
		return a, errors.New("no workload was prepared")
	case q.Run > 0:
		s, err := c.job.Run(ctx, q.Run, OwnUsage)
		if err == nil {
			a.Sample = &s
		}
		return a, err
	default:
		return a, c.profiles.apply(q)
	}
}

func (c *child) closeJob() error {
	if c.job == nil {
		return nil
	}
	job := c.job
	c.job = nil
	return job.Close()
}

func (c *child) close() error {
	if c.sys == nil {
		return nil
	}
	return errors.Join(c.closeJob(), c.sys.Close())
}

// A profiler writes the profiles of this process.
type profiler struct {
	path string
	cpu  *os.File
}

func (p *profiler) apply(q Question) (err error) {
	switch {
	case q.Profile != "":
		if p.cpu, err = os.Create(q.Profile + ".cpu"); err != nil {
			return err
		}
		p.path = q.Profile
		return pprof.StartCPUProfile(p.cpu)
	case q.Stop && p.cpu != nil:
		pprof.StopCPUProfile()
		allocs, err := os.Create(p.path + ".alloc")
		if err != nil {
			return err
		}
		return errors.Join(p.cpu.Close(), pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
	}
	return nil
}
