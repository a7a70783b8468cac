// SPDX-License-Identifier: Apache-2.0

// Dragonboat runs three replicas of a shard of dragonboat, each with a map as the state machine, for bench. Package
// rivals says how to run it alone.
package main

import (
	"context"
	"os"

	"github.com/coterie-kv/coterie/bench/harness"
)

func main() { os.Exit(harness.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, open)) }
