// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
	"github.com/coterie-kv/coterie/etcdapi/internal/subcommand"
)

// The values of --write-out.
const (
	writeSimple = "simple"
	writeJSON   = "json"
)

func status(ctx context.Context, args []string, stdout io.Writer) error {
	var form string
	var skip bool
	set := subcommand.NewFlags("snapshot status FILE [flags]", "Verifies a snapshot and prints its hash, revision, number of keys, size in bytes and version.")
	set.StringVar(&form, "write-out", writeSimple, "the `form` of the output: simple or json")
	set.StringVar(&form, "w", writeSimple, "short for --write-out")
	set.BoolVar(&skip, "skip-hash-check", false, "accept a file without a checksum, such as a copy of member/snap/db")
	rest, err := subcommand.Parse(set, args, stdout)
	switch {
	case err != nil:
		return err
	case len(rest) != 1:
		return subcommand.Usage("snapshot status requires exactly one argument")
	case form != writeSimple && form != writeJSON:
		return subcommand.Usage("--write-out is %q, and must be %s or %s", form, writeSimple, writeJSON)
	}
	var opts []etcdsnapshot.Option
	if skip {
		opts = append(opts, etcdsnapshot.WithSkipHashCheck())
	}
	s, err := etcdsnapshot.ReadStatus(ctx, rest[0], opts...)
	if err != nil {
		return err
	}
	if form == writeJSON {
		return json.NewEncoder(stdout).Encode(s)
	}
	_, err = fmt.Fprintf(stdout, "%x, %d, %d, %d, %s\n", s.Hash, s.Revision, s.TotalKey, s.TotalSize, s.Version)
	return err
}
