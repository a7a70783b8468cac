// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
	"github.com/coterie-kv/coterie/etcdapi/internal/subcommand"
)

func save(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var e endpoint
	var d directory
	set := subcommand.NewFlags("snapshot save FILE [flags]", `Saves a snapshot of one running endpoint, or with --data-dir of the directory of a coteried that is stopped.
Variables such as ETCDCTL_ENDPOINTS have the values of flags that are not given.`)
	e.flags(set)
	if err := subcommand.FromEnvironment(set, "ETCDCTL"); err != nil {
		return err
	}
	d.flags(set)
	rest, err := subcommand.Parse(set, args, stdout)
	switch {
	case err != nil:
		return err
	case len(rest) != 1:
		return subcommand.Usage("snapshot save requires exactly one argument, the file to make")
	}
	copy := e.copy
	if d.dir != "" {
		copy = d.copy
	}
	if err := saveTo(ctx, rest[0], func(w io.Writer) error { return copy(ctx, w, stderr) }); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "Snapshot saved at %s\n", rest[0])
	return nil
}

// saveTo makes a file of a snapshot, or leaves the file as it was. It verifies the snapshot first.
func saveTo(ctx context.Context, name string, write func(io.Writer) error) (err error) {
	part := name + ".part"
	file, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	err = write(file)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if _, err := etcdsnapshot.Read(ctx, part); err != nil {
		return err
	}
	return os.Rename(part, name)
}
