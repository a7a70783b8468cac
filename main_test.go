// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"log/slog"
	"testing"
)

// TestMain silences the nodes that are opened without a logger, so that what a test reports can be seen.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	m.Run()
}
