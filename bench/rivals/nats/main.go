// SPDX-License-Identifier: Apache-2.0

// Nats runs three servers of NATS with a key-value bucket of JetStream that has three replicas, for bench. Package rivals
// says how to run it alone. The program has two systems, which differ in their durability.
package main

import (
	"context"
	"os"

	"github.com/coterie-kv/coterie/bench/harness"
)

func main() { os.Exit(harness.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, open)) }
