// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"context"
	"errors"
	"io"

	"github.com/coterie-kv/coterie"
)

// Restore makes cfg.Dir the directory of a founder of a new cluster that begins with the contents of an etcd snapshot, or of
// the data directory of an etcd that is stopped. It is [coterie.RestoreBackup] for data of etcd: call it once for each
// founder, with the Config that coterie.Open gets afterwards, and each time with the same data and options. It restores
// everything or nothing, and writes nothing before it has verified all data.
//
// Errors: those of [Read] and of coterie.RestoreBackup.
func Restore(ctx context.Context, path string, cfg coterie.Config, opts ...Option) error {
	c, err := Read(ctx, path, opts...)
	if err != nil {
		return err
	}
	return RestoreContents(ctx, c, cfg)
}

// RestoreContents is [Restore] for contents that were read before.
//
// Errors: those of coterie.RestoreBackup.
func RestoreContents(ctx context.Context, c *coterie.Contents, cfg coterie.Config) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := c.WriteBackup(ctx, w)
		w.CloseWithError(err)
		written <- err
	}()
	err := coterie.RestoreBackup(ctx, r, cfg)
	r.CloseWithError(io.ErrClosedPipe) // RestoreBackup may not have read all
	if failed := <-written; failed != nil && !errors.Is(failed, io.ErrClosedPipe) {
		return failed
	}
	return err
}
