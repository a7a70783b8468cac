// SPDX-License-Identifier: Apache-2.0

// Quickstart demonstrates coterie on three nodes in one process. They use TCP on loopback and a directory
// each, as they would in three instances of a service. Each step checks its result. If a check fails, the
// program prints the step and exits with 1.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coterie-kv/coterie"
)

// A shop is the service that the steps work on.
type shop struct {
	cluster *coterie.Cluster
	nodes   []*coterie.Node
}

var steps = []struct {
	name string
	run  func(ctx context.Context, s *shop) error
}{
	{"share configuration", shareConfiguration},
	{"follow a change", followChange},
	{"lock with fencing tokens", contendForLock},
	{"register with a lease", register},
	{"elect a leader", electLeader},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "quickstart")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	slog.SetLogLoggerLevel(slog.LevelWarn) // nodes log to slog.Default(): an instance of a service should not hide this
	begin := time.Now()
	cluster, err := coterie.OpenCluster(ctx, 3, coterie.Config{Dir: dir, Addr: "127.0.0.1:0"})
	if err != nil {
		return fmt.Errorf("open three nodes: %w", err)
	}
	defer cluster.Close()
	s := &shop{cluster: cluster, nodes: cluster.Nodes()}
	say("three nodes", "agree on a leader %v after they were opened, with a directory each", since(begin))

	for _, step := range steps {
		if err := step.run(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	say("done", "in %v", since(begin))
	return nil
}

// say prints a line that begins with its subject.
func say(about, format string, args ...any) {
	fmt.Printf("%-26s %s\n", about, fmt.Sprintf(format, args...))
}

func since(t time.Time) time.Duration { return time.Since(t).Round(100 * time.Microsecond) }
