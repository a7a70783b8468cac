// SPDX-License-Identifier: Apache-2.0

// Config is a configuration centre. Every instance has the settings in memory, typed and validated. Any
// instance can change them, and undo a change.
//
// Without flags, three nodes in one process demonstrate and check this. To run three processes on one
// machine, use a terminal for each:
//
//	go run ./examples/config -name a -addr 127.0.0.1:7401 -dir /tmp/config/a \
//		-founders a=127.0.0.1:7401,b=127.0.0.1:7402,c=127.0.0.1:7403
//	go run ./examples/config -name b -addr 127.0.0.1:7402 -dir /tmp/config/b \
//		-founders a=127.0.0.1:7401,b=127.0.0.1:7402,c=127.0.0.1:7403
//	go run ./examples/config -name c -addr 127.0.0.1:7403 -dir /tmp/config/c \
//		-founders a=127.0.0.1:7401,b=127.0.0.1:7402,c=127.0.0.1:7403
//
// Each process prints the settings whenever they change. Type level=debug or rate=50 into any of them to
// change the settings of all, if the new ones are valid. Type undo to undo the last change. A process that
// starts while no other one runs continues with its last settings, which are in a file beside its
// directory.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/examples/internal/process"
	"github.com/coterie-kv/coterie/sharedconfig"
)

// key is the key of the settings in the store.
const key = "config"

// settings are shared by all instances.
type settings struct {
	Level string `json:"level"`
	Rate  int    `json:"rate"`
}

// validate checks settings before they are stored, and again in each instance that receives them.
func (s settings) validate() error {
	if s.Rate <= 0 {
		return fmt.Errorf("rate is %d, and must be positive", s.Rate)
	}
	return nil
}

func (s settings) String() string { return fmt.Sprintf("level=%s rate=%d", s.Level, s.Rate) }

func main() { process.Main(demo, serve) }

// patience is how long a process waits for a majority before it begins with its last settings.
const patience = 3 * time.Second

// open returns the settings, and keeps them current in memory and, unless file is empty, in a file.
func open(ctx context.Context, node *coterie.Node, file string) (*sharedconfig.Value[settings], error) {
	cfg := sharedconfig.Config[settings]{
		Keys: []string{key}, Default: settings{Level: "info", Rate: 100}, Validate: settings.validate, File: file,
	}
	moment, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	v, err := sharedconfig.Open(moment, node, cfg)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return sharedconfig.Open(ctx, node, cfg) // this process has never had settings
	}
	return v, err
}

// serve runs one of three nodes. It prints the settings and carries out typed lines until ctx ends.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits for the other nodes: all %d at the first start, a majority later\n", cfg.Name, len(cfg.Founders))
	v, err := open(ctx, node, cfg.Dir+".settings")
	if err != nil {
		return err
	}
	defer v.Close()
	go obey(ctx, v, os.Stdin)
	for now, err := range v.Follow(ctx) {
		if err != nil {
			return err
		}
		fmt.Printf("%s has %v\n", cfg.Name, now.Value)
		if now.Err != nil {
			fmt.Printf("%s keeps these settings: %v\n", cfg.Name, now.Err)
		}
	}
	return nil
}

// obey carries out each line that it reads.
func obey(ctx context.Context, v *sharedconfig.Value[settings], from io.Reader) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		var err error
		if line := lines.Text(); line == "undo" {
			_, err = v.Rollback(ctx, 0)
		} else {
			_, err = v.Update(ctx, func(s settings) (settings, error) { return change(s, line) })
		}
		if err != nil {
			fmt.Printf("rejected: %v\n", err)
		}
	}
}

// change returns the settings with the change that a line describes.
func change(s settings, line string) (settings, error) {
	name, value, _ := strings.Cut(line, "=")
	var err error
	switch name {
	case "level":
		s.Level = value
	case "rate":
		s.Rate, err = strconv.Atoi(value)
	default:
		err = fmt.Errorf("%q: type level=… or rate=… or undo", line)
	}
	return s, err
}

// demo changes the settings on two of three nodes, and checks that the third one follows.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cluster, err := coterie.OpenCluster(ctx, 3, coterie.Config{InMemory: true})
	if err != nil {
		return fmt.Errorf("open three nodes: %w", err)
	}
	defer cluster.Close()
	var on [3]*sharedconfig.Value[settings] // on each node
	for i, node := range cluster.Nodes() {
		if on[i], err = open(ctx, node, ""); err != nil {
			return err
		}
		defer on[i].Close()
	}
	// This is the usual loop over Follow, pulled step by step, to check node3 after each change.
	see, stop := iter.Pull2(on[2].Follow(ctx))
	defer stop()

	var rejected *sharedconfig.RejectedError
	for _, step := range []struct {
		name string
		do   func() error
		want string
		bad  bool // node3 reports that it does not use the stored settings
	}{
		{"nothing is set", func() error { return nil }, "level=info rate=100", false},
		{"node1 sets the level", func() error {
			_, err := on[0].Update(ctx, func(s settings) (settings, error) { return change(s, "level=debug") })
			return err
		}, "level=debug rate=100", false},
		{"node2 sets a valid rate", func() error {
			_, err := on[1].Update(ctx, func(s settings) (settings, error) { return change(s, "rate=-1") })
			if !errors.As(err, &rejected) {
				return fmt.Errorf("an invalid rate ended with %v", err)
			}
			_, err = on[1].Update(ctx, func(s settings) (settings, error) { return change(s, "rate=50") })
			return err
		}, "level=debug rate=50", false},
		{"a tool writes invalid JSON", func() error {
			_, err := cluster.Node(0).Put(ctx, key, `{"rate": "fast"}`)
			return err
		}, "level=debug rate=50", true},
		{"node1 undoes that", func() error {
			_, err := on[0].Rollback(ctx, 0)
			return err
		}, "level=debug rate=50", false},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		now, err, _ := see()
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if now.Value.String() != step.want || errors.As(now.Err, &rejected) != step.bad {
			return fmt.Errorf("%s: node3 has %v, %v", step.name, now.Value, now.Err)
		}
		fmt.Printf("%-33s node3 has %v\n", step.name, now.Value)
		if step.bad {
			fmt.Printf("%33s because %v\n", "", now.Err)
		}
	}
	return nil
}
