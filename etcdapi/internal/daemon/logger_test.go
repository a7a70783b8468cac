// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLogHasTheKeysOfEtcd(t *testing.T) {
	var out, errs strings.Builder
	file := filepath.Join(t.TempDir(), "log")
	log, closeLog, err := newLogger(&LogSettings{Level: "warn", Format: "json", Outputs: stringList{"stdout", "stderr", file}}, &out, &errs)
	require.NoError(t, err)
	log.Info("not this one")
	log.Warn("a line", "level", "mine")
	require.NoError(t, closeLog())
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(written), out.String())
	require.Equal(t, out.String(), errs.String())
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
	var line struct{ Level, TS, Msg string }
	require.NoError(t, json.Unmarshal(written, &line))
	require.Equal(t, "a line", line.Msg)
	_, err = time.Parse(etcdTime, line.TS)
	require.NoError(t, err)
	require.Contains(t, out.String(), `"level":"warn"`)
}

func TestConsoleLogIsText(t *testing.T) {
	var out strings.Builder
	log, closeLog, err := newLogger(&LogSettings{Level: "debug", Format: "console", Outputs: stringList{"default"}}, io.Discard, &out)
	require.NoError(t, err)
	log.Debug("a line", "n", 7)
	require.NoError(t, closeLog())
	require.Contains(t, out.String(), `level=debug msg="a line" n=7`)
	_, _, err = newLogger(&LogSettings{Level: "info", Outputs: stringList{filepath.Join(t.TempDir(), "missing", "log")}}, io.Discard, io.Discard)
	require.ErrorContains(t, err, "--log-outputs: ")
}
