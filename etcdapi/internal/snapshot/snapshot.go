// SPDX-License-Identifier: Apache-2.0

// Package snapshot is the subcommand "coteried snapshot": it saves etcd snapshots of a running endpoint, or of the data
// directory of a coteried that is stopped, and describes them. etcdutl and "coteried restore" read the snapshots.
package snapshot

import (
	"context"
	"fmt"
	"io"

	"github.com/coterie-kv/coterie/etcdapi/internal/subcommand"
)

const usage = `Usage: coteried snapshot COMMAND

Commands:
  save FILE      saves a snapshot of an endpoint, or of a data directory
  status FILE    verifies a snapshot and describes it

"coteried snapshot COMMAND -h" has the flags.
`

// Run runs the subcommand, and returns the exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return subcommand.Exit(stderr, run(ctx, args, stdout, stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	switch name {
	case "save":
		return save(ctx, args[1:], stdout, stderr)
	case "status":
		return status(ctx, args[1:], stdout)
	case "-h", "-help", "--help", "help":
		_, err := io.WriteString(stdout, usage)
		return err
	}
	fmt.Fprint(stderr, usage)
	return subcommand.Usage("snapshot requires a command, save or status")
}
