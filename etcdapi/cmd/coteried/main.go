// SPDX-License-Identifier: Apache-2.0

// Coteried is a daemon that starts where etcd would start: a node of coterie with etcd's protocol and etcd's flags.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coterie-kv/coterie/etcdapi/internal/daemon"
)

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
	os.Exit(daemon.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
