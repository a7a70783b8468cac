// SPDX-License-Identifier: Apache-2.0

// Package process has the parts that all example programs share: flags that describe a node, and signals
// that end it.
package process

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/coterie-kv/coterie"
)

// Main runs demo if there are no flags. Otherwise it runs serve, with the configuration that the flags
// describe and a context that ends with SIGINT, SIGTERM or -for. It exits with 1 after an error, unless
// serve returns the cause of its context. It exits with 2 if there is an argument that is not a flag.
func Main(demo func(context.Context) error, serve func(context.Context, coterie.Config) error) {
	var cfg coterie.Config
	flag.StringVar(&cfg.Name, "name", "", "the `name` of this node, one of -founders")
	flag.StringVar(&cfg.Addr, "addr", "", "the `host:port` to listen on")
	flag.StringVar(&cfg.Dir, "dir", "", "the data `directory` of this node")
	flag.Func("founders", "all nodes, in the same way on each: `name=addr,...`", func(list string) error {
		for founder := range strings.SplitSeq(list, ",") {
			name, addr, _ := strings.Cut(founder, "=")
			cfg.Founders = append(cfg.Founders, coterie.Founder{Name: name, Addr: addr})
		}
		return nil // coterie.Open checks them
	})
	life := flag.Duration("for", 0, "stop after this `time`; 0 waits for a signal")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Without flags, %s runs a demonstration in one process, and checks it.\n"+
			"With -name, -addr, -dir and -founders, it is one of several processes:\n", program())
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "%s: unexpected arguments %q\n", program(), flag.Args())
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *life > 0 {
		ctx, stop = context.WithTimeout(ctx, *life)
		defer stop()
	}
	var err error
	if flag.NFlag() == 0 {
		slog.SetLogLoggerLevel(slog.LevelWarn) // the demo prints the events itself
		err = demo(ctx)
	} else if err = serve(ctx, cfg); errors.Is(err, context.Cause(ctx)) {
		err = nil
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program(), err)
		os.Exit(1)
	}
}

func program() string { return filepath.Base(os.Args[0]) }
