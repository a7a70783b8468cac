// SPDX-License-Identifier: Apache-2.0

package raftlogger

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/throttle"
)

func TestRecurringWarningsAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		expected := errors.New("expected")
		l := New(slog.New(slog.NewTextHandler(&out, nil)), expected)
		lines := func() (all []string) {
			for line := range strings.Lines(out.String()) {
				_, line, _ := strings.Cut(strings.TrimSpace(line), " ")
				all = append(all, strings.ReplaceAll(line, " part=raft", ""))
			}
			out.Reset()
			return all
		}
		for range throttle.Interval / time.Second {
			l.Error("failed to heartbeat to", "peer", "b:1", "backoff time", time.Second)
			l.Error("failed to heartbeat to", "peer", "c:1", "backoff time", time.Second)
			l.With("k", "v").Error("failed to make requestVote RPC", "target", "b:1")
			l.Warn("election timeout")
			require.Empty(t, lines(), "these lines have not recurred for long enough")
			time.Sleep(time.Second)
		}
		for range 100 {
			l.Error("failed to heartbeat to", "peer", "b:1", "backoff time", time.Second)
		}
		l.Error("failed to heartbeat to", "peer", "c:1", "backoff time", time.Second)
		l.With("k", "v").Error("failed to make requestVote RPC", "target", "b:1")
		l.Warn("failed to heartbeat to", "peer", "b:1")
		require.Equal(t, []string{
			`level=WARN msg="failed to heartbeat to" peer=b:1 "backoff time"=1s omitted=0`,
			`level=WARN msg="failed to heartbeat to" peer=c:1 "backoff time"=1s omitted=99`,
			`level=WARN msg="failed to make requestVote RPC" k=v target=b:1 omitted=0`,
		}, lines())
		time.Sleep(throttle.Interval / 2)
		l.Warn("election timeout")
		time.Sleep(throttle.Interval / 2)
		l.Warn("election timeout")
		l.Warn("election timeout")
		l.Error("failed to heartbeat to", "peer", "b:1")
		require.Equal(t, []string{
			`level=WARN msg="election timeout" omitted=1`, `level=WARN msg="election timeout" omitted=0`,
		}, lines())
		for range 3 {
			l.Error("failed to get log", "index", 5)
			l.Error("failed to get log", "index", 6, "error", errors.New("log not found"))
			l.Error("failed")
		}
		require.Equal(t, strings.Repeat(`level=ERROR msg="failed to get log" index=5 level=ERROR msg=failed `, 3), strings.Join(lines(), " ")+" ")
		time.Sleep(throttle.Interval)
		l.Warn("election timeout")
		require.Empty(t, lines(), "there was a gap")
		for i := range uint64(20) {
			l.Warn("failed to get previous log", "previous-index", i)
			time.Sleep(time.Second)
		}
		require.Equal(t, []string{`level=WARN msg="failed to get previous log" previous-index=10 omitted=1`}, lines())
		for range 20 {
			l.Error("failed to make requestVote RPC", "target", "d:1", "error", expected)
			time.Sleep(time.Second)
		}
		require.Empty(t, lines(), "the error is expected")
		l.Info("routine work", "peer", "b:1", "servers", hclog.Fmt("%d", 5))
		require.Empty(t, lines())
	})
}
