// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"time"
)

// The environment of a server process.
const (
	envSystem = "COTERIE_BENCH_SYSTEM"
	envDir    = "COTERIE_BENCH_DIR"
)

// startTimeout is how long a server may take to serve.
const startTimeout = time.Minute

// servers are the systems that serve etcd's protocol. Each function returns the addresses of its members, that of the
// leader first, and a function that stops it.
var servers = map[string]func(ctx context.Context, dir string) (addrs []string, stop func() error, err error){
	"etcd":    startEtcd,
	"coterie": startCoterie,
	"bare":    startBare,
}

// A question goes to a server process, on its standard input.
type question struct {
	Profile string `json:"profile,omitempty"` // begins profiles, as the files Profile.cpu and Profile.alloc
	Stop    bool   `json:"stop,omitempty"`    // ends the profiles
}

// An answer comes from a server process, on its standard output: the first one when it serves, and one for each question.
type answer struct {
	Addrs []string `json:"addrs,omitempty"`
	Usage usage    `json:"usage"`
	Error string   `json:"error,omitempty"`
}

// isServer reports whether this process is a server.
func isServer() bool { return os.Getenv(envSystem) != "" }

// runServer serves until the standard input ends, and returns the exit status.
func runServer() int {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	out := json.NewEncoder(os.Stdout)
	addrs, stop, err := servers[os.Getenv(envSystem)](ctx, os.Getenv(envDir))
	if err != nil {
		_ = out.Encode(answer{Error: err.Error()}) // the status says so, too
		return 1
	}
	_ = out.Encode(answer{Addrs: addrs, Usage: used()})
	in := json.NewDecoder(os.Stdin)
	var profiles profiler
	for {
		var q question
		if err := in.Decode(&q); err != nil {
			break // the end of the input
		}
		a := answer{Usage: used()}
		if err := profiles.apply(q); err != nil {
			a.Error = err.Error()
		}
		if out.Encode(a) != nil {
			break
		}
	}
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// used returns the usage of this process since its start.
func used() (u usage) {
	u.CPU, u.SysCPU = cpuTime()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.Allocs, u.Bytes, u.GCCount = m.Mallocs, m.TotalAlloc, m.NumGC
	u.MaxRSS = rusage().Maxrss << 10
	return u
}

// A profiler writes the profiles of this process.
type profiler struct {
	path string
	cpu  *os.File
}

func (p *profiler) apply(q question) (err error) {
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

// A server is a server process, as its parent sees it. One goroutine uses it.
type server struct {
	addrs []string // of the members, that of the leader first
	cmd   *exec.Cmd
	out   *json.Encoder
	in    *json.Decoder
	end   func() error // closes the standard input of the process
}

// startServer starts a server process.
func startServer(ctx context.Context, system, dir string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), envSystem+"="+system, envDir+"="+dir)
	cmd.Stderr = os.Stderr
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
	s := &server{cmd: cmd, out: json.NewEncoder(in), in: json.NewDecoder(out), end: in.Close}
	a, err := s.answer()
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.addrs = a.Addrs
	return s, nil
}

func (s *server) answer() (a answer, err error) {
	if err := s.in.Decode(&a); err != nil {
		return a, fmt.Errorf("the server process: %w", err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("the server process: %s", a.Error)
	}
	return a, nil
}

func (s *server) ask(q question) (usage, error) {
	if err := s.out.Encode(q); err != nil {
		return usage{}, err
	}
	a, err := s.answer()
	return a.Usage, err
}

// profile begins profiles of the process.
func (s *server) profile(path string) (stop func() error, err error) {
	if _, err := s.ask(question{Profile: path}); err != nil {
		return nil, err
	}
	return func() error {
		_, err := s.ask(question{Stop: true})
		return err
	}, nil
}

func (s *server) close() error { return errors.Join(s.end(), s.cmd.Wait()) }
