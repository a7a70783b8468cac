// SPDX-License-Identifier: Apache-2.0

package process_test

import (
	"bytes"
	"context"
	"flag"
	"log"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/examples/internal/process"
)

// The log of a demo's nodes would hide the demo's own output, so it has only warnings.
func TestDemoLogsOnlyWarnings(t *testing.T) {
	var text bytes.Buffer
	log.SetOutput(&text)
	args, level := os.Args, slog.SetLogLoggerLevel(slog.LevelInfo)
	t.Cleanup(func() {
		os.Args = args
		slog.SetLogLoggerLevel(level)
		log.SetOutput(os.Stderr)
	})
	os.Args, flag.CommandLine = []string{"demo"}, flag.NewFlagSet("demo", flag.PanicOnError)
	process.Main(func(context.Context) error {
		slog.Info("leadership")
		slog.Warn("no leader")
		return nil
	}, func(context.Context, coterie.Config) error { t.Error("there are no flags"); return nil })
	require.NotContains(t, text.String(), "leadership")
	require.Contains(t, text.String(), "no leader")
}
