// SPDX-License-Identifier: Apache-2.0

// Raftboltdb runs three members of hashicorp/raft, each with a log in a file of raft-boltdb and a map as the state
// machine, for bench. Package rivals says how to run it alone.
package main

import (
	"context"
	"os"

	"github.com/coterie-kv/coterie/bench/harness"
)

func main() { os.Exit(harness.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, open)) }
