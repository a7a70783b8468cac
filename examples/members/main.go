// SPDX-License-Identifier: Apache-2.0

// Members leads a cluster through its life: it is founded, grows, is restarted under load, loses a disk,
// shrinks, and loses a majority. Every node is a process of its own, with a directory, TCP and TLS.
// Meanwhile a client writes, and none of its calls may fail.
//
//	go run ./examples/members
//
// The program plays the operator: it makes the certificates, starts the processes, and calls their HTTP
// interface as an operator's scripts would. Each step checks its result. If a check fails, the program
// prints the nodes' logs and exits with 1. It needs a Unix, for SIGTERM. The processes that it starts
// outlive it by at most two minutes, even if it is killed.
//
// Copy service.go, an instance of a service with a node inside. steps.go shows the calls of each task, and
// docs/operations.md describes the same tasks in words.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/coterie-kv/coterie/examples/internal/process"
)

func main() {
	var s service
	flag.StringVar(&s.http, "http", "", "the `host:port` of the HTTP interface")
	flag.StringVar(&s.certificates, "certificates", "", "the `directory` that has ca.pem, cert.pem and key.pem")
	flag.StringVar(&s.join, "join", "", "a member's `host:port`, for a node that is not a founder")
	flag.BoolVar(&s.nonVoter, "nonvoter", false, "join without a vote")
	process.Main(demo, s.serve)
}

// demo runs all steps.
func demo(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp("", "members")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	authority, err := newAuthority()
	if err != nil {
		return fmt.Errorf("make a certificate authority: %w", err)
	}
	o := &operator{ctx: ctx, dir: dir, authority: authority, instances: map[string]*instance{}, client: newClient()}
	defer func() {
		o.killAll()
		if err != nil {
			o.printLogs(os.Stderr)
		}
	}()

	begin := time.Now()
	for _, step := range steps {
		if err := step.run(o); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	say("done", "in %v", since(begin))
	return nil
}

// say prints a line that begins with its subject.
func say(about, format string, args ...any) {
	fmt.Printf("%-18s %s\n", about, fmt.Sprintf(format, args...))
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
