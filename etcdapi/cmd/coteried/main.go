// SPDX-License-Identifier: Apache-2.0

// Coteried is a daemon that starts where etcd would start: a node of coterie with etcd's protocol and etcd's flags.
//
// "coteried restore" makes the data directory of a member from the data of an etcd, "coteried snapshot" saves the data for
// etcd, and "coteried certs" makes certificates.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coterie-kv/coterie/etcdapi/internal/certs"
	"github.com/coterie-kv/coterie/etcdapi/internal/daemon"
	"github.com/coterie-kv/coterie/etcdapi/internal/restore"
	"github.com/coterie-kv/coterie/etcdapi/internal/snapshot"
)

// subcommands are the words that may replace the flags.
var subcommands = map[string]func(ctx context.Context, args []string, stdout, stderr io.Writer) int{
	"certs":    certs.Run,
	"restore":  restore.Run,
	"snapshot": snapshot.Run,
}

// oneSignal is the time in which several signals are one: some programs signal both a process and its group.
const oneSignal = 250 * time.Millisecond

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		time.Sleep(oneSignal)
		for len(signals) > 0 {
			<-signals
		}
		<-signals
		os.Exit(1) // the operator does not want to wait
	}()
	if len(os.Args) > 1 {
		if run, ok := subcommands[os.Args[1]]; ok {
			os.Exit(run(ctx, os.Args[2:], os.Stdout, os.Stderr))
		}
	}
	os.Exit(daemon.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
