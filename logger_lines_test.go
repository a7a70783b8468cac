// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// documentedLines returns the messages of docs/metrics.md, each with "level: keys", and the attributes that the
// document explains.
func documentedLines(t *testing.T) (lines map[string]string, keys []string) {
	t.Helper()
	text, err := os.ReadFile("docs/metrics.md")
	require.NoError(t, err)
	_, log, _ := strings.Cut(string(text), "\n## Log\n")
	lines = map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (\\w+) \\|([^|]*)\\|").FindAllStringSubmatch(log, -1) {
		lines[row[1]] = row[2] + ":" + strings.TrimRight(strings.ReplaceAll(row[3], "`", ""), " ")
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^` ]+)` \\| [^|]*\\|$").FindAllStringSubmatch(log, -1) {
		keys = append(keys, row[1])
	}
	return lines, keys
}

// logCalls returns every line in the source that is logged, in the form of documentedLines.
func logCalls(t *testing.T) map[string]string {
	t.Helper()
	lines := map[string]string{}
	for _, s := range sources(t) {
		if s.test() || strings.HasPrefix(s.path, "examples/") {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error", "Log"}, method.Sel.Name) {
				return true
			}
			of := method.X
			if call, ok := of.(*ast.CallExpr); ok {
				of = call.Fun // n.Logger(), as in recipes
			}
			if sel, ok := of.(*ast.SelectorExpr); !ok || sel.Sel.Name != "Logger" {
				return true
			}
			text := func(e ast.Expr) string {
				lit, ok := e.(*ast.BasicLit)
				require.True(t, ok, "%s: a message or a key of the log is not a constant", s.path)
				unquoted, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				return unquoted
			}
			line := method.Sel.Name + ":"
			for i := 1; i < len(call.Args); i += 2 {
				line += " " + text(call.Args[i])
			}
			lines[text(call.Args[0])] = line
			return true
		})
	}
	return lines
}

func TestEveryLineOfTheLogIsDocumented(t *testing.T) {
	lines, keys := documentedLines(t)
	require.Equal(t, lines, logCalls(t))
	used := map[string]bool{"node": true, "part": true}
	for _, line := range lines {
		for _, key := range strings.Fields(line)[1:] {
			used[key] = true
		}
	}
	for key := range used {
		require.Contains(t, keys, key)
	}
	require.Len(t, keys, len(used))
}

// A strict handler records lines that are not documented.
type strict struct {
	lines map[string]string
	with  []string // keys of all lines
	to    *heard
}

type heard struct {
	sync.Mutex
	seen map[string]bool
	bad  []string
}

func (h strict) Enabled(context.Context, slog.Level) bool { return true }

func (h strict) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.with = slices.Clone(h.with)
	for _, a := range attrs {
		h.with = append(h.with, a.Key)
	}
	return h
}

func (h strict) WithGroup(name string) slog.Handler {
	return h.WithAttrs([]slog.Attr{slog.Bool("group "+name, true)})
}

func (h strict) Handle(_ context.Context, r slog.Record) error {
	h.to.Lock()
	defer h.to.Unlock()
	if slices.Equal(h.with, []string{"node", "part"}) {
		return nil // a line of raft
	}
	line := r.Level.String() + ":"
	r.Attrs(func(a slog.Attr) bool { line += " " + a.Key; return true })
	h.to.seen[r.Message] = true
	if !slices.Equal(h.with, []string{"node"}) || !strings.EqualFold(h.lines[r.Message], line) {
		h.to.bad = append(h.to.bad, fmt.Sprintf("%q %v %s", r.Message, h.with, line))
	}
	return nil
}

func TestLoggedLinesAreDocumented(t *testing.T) {
	lines, _ := documentedLines(t)
	h := strict{lines: lines, to: &heard{seen: map[string]bool{}}}
	networks := make([]coterie.Network, 3)
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		stranger, err := networks[0].Dial(t.Context(), "node2:1")
		require.NoError(t, err)
		_, err = stranger.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		require.NoError(t, err)
		leader := c.Index(c.Leader())
		c.FillDisk(leader, true)
		for range 50 { // until the space that the log has reserved is used up
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := c.Node(leader).Put(ctx, "k", string(make([]byte, 1<<20)))
			cancel()
			if errors.Is(err, coterie.ErrNoSpace) {
				break
			}
		}
		time.Sleep(10 * time.Second)
		c.Heal()
		time.Sleep(time.Second)
		put(t, c.Node(leader), "k", "v")
	}, coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		cfg.Logger = slog.New(h)
		networks[i] = cfg.Network
	}))
	require.Empty(t, h.to.bad)
	for _, message := range []string{"node opened", "leadership", "connection refused", "the disk takes no writes, leadership is handed over",
		"the log cannot be written, and is tried again"} {
		require.True(t, h.to.seen[message], message)
	}
}

// A tally counts the lines of a level and above.
type tally struct {
	slog.Handler
	errors, warnings *atomic.Int64
}

func (h tally) Enabled(context.Context, slog.Level) bool { return true }
func (h tally) WithAttrs([]slog.Attr) slog.Handler       { return h }

func (h tally) Handle(_ context.Context, r slog.Record) error {
	switch {
	case r.Level >= slog.LevelError:
		h.errors.Add(1)
	case r.Level == slog.LevelWarn:
		h.warnings.Add(1)
	}
	return nil
}

// A node that is absent or refused must not fill the logs of the others.
func TestAbsentNodeIsLoggedRarely(t *testing.T) {
	for name, remove := range map[string]func(c *coterietest.Cluster, i int){
		"down":    (*coterietest.Cluster).Crash,
		"cut off": (*coterietest.Cluster).Pause,
		"refused": func(c *coterietest.Cluster, i int) { c.Wipe(i); c.Restart(i) },
	} {
		t.Run(name, func(t *testing.T) {
			h := tally{errors: new(atomic.Int64), warnings: new(atomic.Int64)}
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				remove(c, c.Index(c.Follower()))
				c.Leader()
				for range 10 * 60 {
					time.Sleep(time.Second)
					put(t, c.Leader(), "k", "v")
				}
				warnings, errors := h.warnings.Load(), h.errors.Load()
				t.Logf("%d warnings in ten minutes", warnings)
				require.Zero(t, errors)
				require.Positive(t, warnings)
				require.Less(t, warnings, int64(1000), "on all three nodes")
			}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Logger = slog.New(h) }))
		})
	}
}

// A transcript has the lines of a node's log.
type transcript struct {
	mu    sync.Mutex
	lines []string
}

func (tr *transcript) Write(b []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.lines = append(tr.lines, strings.TrimSpace(string(b)))
	return len(b), nil
}

// A start, a run, a restart of each node in turn and a close produce a few lines at Info, and none above.
func TestHealthyNodeLogsLittle(t *testing.T) {
	logs := []*transcript{{}, {}, {}}
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		run := func() {
			for range 30 {
				for _, n := range c.Nodes() {
					put(t, n, "k", "v")
				}
				time.Sleep(time.Second)
			}
		}
		run()
		for i := range 3 {
			c.Stop(i)
			put(t, c.Leader(), "k", "v")
			time.Sleep(5 * time.Second)
			c.Restart(i)
			require.NoError(t, c.Node(i).Ready(t.Context()))
			run()
		}
	}, coterietest.WithConfig(func(i int, cfg *coterie.Config) { cfg.Logger = slog.New(slog.NewTextHandler(logs[i], nil)) }))
	for i, log := range logs {
		text := strings.Join(log.lines, "\n")
		require.NotContains(t, text, "level=WARN")
		require.NotContains(t, text, "level=ERROR")
		require.Less(t, len(log.lines), 10, "n%d:\n%s", i, text)
		require.Contains(t, text, "node opened")
		require.Contains(t, text, "node closed")
	}
}

// A lost majority is logged once, with the state of the other nodes. An election is no warning.
func TestLostMajorityIsAWarning(t *testing.T) {
	const warning = `level=WARN msg="no leader for three election timeouts"`
	logs := []*messages{{}, {}, {}}
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		first := c.Index(c.Leader())
		c.Crash(first)
		second := c.Index(c.Leader())
		time.Sleep(time.Minute)
		for _, log := range logs {
			require.False(t, log.has(warning))
		}
		require.True(t, logs[second].has(fmt.Sprintf("level=INFO msg=leadership node=node%d leader=%v name=node%[1]d", second+1, c.Node(second).ID())))
		c.Crash(second)
		left := 3 - first - second
		time.Sleep(time.Minute)
		require.Equal(t, 1, logs[left].count(warning))
		require.True(t, logs[left].has(fmt.Sprintf("%s node=node%d err=\"coterie: no leader; node%d node%[3]d:1, node%[4]d node%[4]d:1: connection refused\"",
			warning, left+1, min(first, second)+1, max(first, second)+1)))
		c.Restart(first)
		c.Restart(second)
	}, coterietest.WithConfig(func(i int, cfg *coterie.Config) { cfg.Logger = logs[i].logger() }))
}

// The log says in words why two nodes refuse each other.
func TestRefusalsAreLoggedInWords(t *testing.T) {
	var log messages
	synctest.Test(t, func(t *testing.T) {
		all := sites(3)
		all[2].Founders = slices.Clone(all[2].Founders)
		all[2].Founders[1].Addr = "r1:9"
		for i, s := range all {
			if i != 1 {
				s.Logger = log.logger()
			}
			s.open(t)
		}
		time.Sleep(10 * time.Second)
	})
	require.True(t, log.has(`msg="connection failed" node=r2 remote=r0:1 err="coterie: cluster or member mismatch: Config.Founders differs: r1 is r1:9 here and r1:1 there"`))
	require.False(t, log.has("rpc: another cluster"))
	require.True(t, log.has(`msg="connection failed" node=r0 remote=r2:1 err="coterie: cluster or member mismatch: Config.Founders differs: r1 is r1:1 here and r1:9 there"`))
}
