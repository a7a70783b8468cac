// SPDX-License-Identifier: Apache-2.0

// Node is a program that embeds a node, for the tests of its parent directory. The tests build it with
// this version of coterie and with earlier ones, so this file uses only names that all of them have. The
// other names are in founders.go, metadata.go and users.go, and in testdata for earlier versions.
//
//	node NAME ADDR ADVERTISE DIR FOUNDERS
//
// FOUNDERS are NAME=ADDR, separated by commas. The program reads one command per line, each preceded by a
// number, and answers in any order, with the same number: "put KEY VALUE", "get KEY", "ready", "members",
// "backup FILE", and the commands of users.go. When its input ends, it closes the node and exits.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coterie-kv/coterie"
)

func main() {
	cfg := coterie.Config{
		Name: os.Args[1], Addr: os.Args[2], Advertise: os.Args[3], Dir: os.Args[4], SnapshotEntries: 200,
		ElectionTimeout: 500 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	for _, p := range strings.Split(os.Args[5], ",") {
		name, addr, _ := strings.Cut(p, "=")
		addFounder(&cfg, name, addr)
	}
	describe(&cfg)
	n, err := coterie.Open(context.Background(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	var running sync.WaitGroup
	var printing sync.Mutex
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		running.Go(func() {
			answer, err := run(n, fields[1:])
			if err != nil {
				answer = "error " + err.Error()
			}
			printing.Lock()
			defer printing.Unlock()
			fmt.Println(fields[0], answer)
		})
	}
	running.Wait()
	if err := n.Close(); err != nil {
		log.Fatal(err)
	}
}

func run(n *coterie.Node, command []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	switch command[0] {
	case "put":
		_, err := n.Put(ctx, command[1], command[2])
		return "done", err
	case "get":
		r, err := n.Get(ctx, command[1])
		if err != nil || len(r.KVs) == 0 {
			return "nothing", err
		}
		return "value " + r.KVs[0].Value, nil
	case "members":
		return descriptions(ctx, n)
	case "ready":
		return "done", n.Ready(ctx)
	case "backup":
		f, err := os.Create(command[1])
		if err != nil {
			return "", err
		}
		_, err = n.Backup(ctx, f)
		if err == nil {
			err = f.Close()
		}
		return "done", err
	}
	return runUsers(ctx, n, command)
}
