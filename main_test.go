// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

// TestMain silences the nodes that are opened without a logger, and gives the tests of package coterie the
// functions of package datadir.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	coterie.InspectDir = func(ctx context.Context, dir string) (uint64, int, error) {
		in, err := datadir.Inspect(ctx, dir)
		return in.AppliedIndex, len(in.DamagedFiles), err
	}
	coterie.RecoverDir = func(ctx context.Context, dir string) error {
		_, err := datadir.Recover(ctx, dir)
		return err
	}
	m.Run()
}
