// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"encoding/json"
	"expvar"
	"fmt"
	"go/ast"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A ledger records the method that each metric came to, and reports metrics that came to two.
type ledger struct {
	coterie.ExpvarMetrics
	mu     sync.Mutex
	kinds  map[coterie.Metric]string
	bad    []string
	failed bool
}

func (l *ledger) note(m coterie.Metric, kind string, value float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kinds == nil {
		l.kinds = map[coterie.Metric]string{}
	}
	if was := l.kinds[m]; was != "" && was != kind || value < 0 {
		l.bad = append(l.bad, fmt.Sprint(m, was, kind, value))
	}
	l.kinds[m] = kind
}

func (l *ledger) Add(m coterie.Metric, v float64) { l.note(m, "Add", v); l.ExpvarMetrics.Add(m, v) }
func (l *ledger) Set(m coterie.Metric, v float64) { l.note(m, "Set", v); l.ExpvarMetrics.Set(m, v) }
func (l *ledger) Observe(m coterie.Metric, v float64) {
	l.note(m, "Observe", v)
	if l.failOnce() {
		panic("this value is lost")
	}
	l.ExpvarMetrics.Observe(m, v)
}

func (l *ledger) failOnce() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.failed
	l.failed = true
	return first
}

// documented returns the metrics of docs/metrics.md, each with the method named in the heading above it.
func documented(t *testing.T) map[coterie.Metric]string {
	t.Helper()
	text, err := os.ReadFile("docs/metrics.md")
	require.NoError(t, err)
	kinds := map[coterie.Metric]string{}
	for section := range strings.SplitSeq(string(text), "\n### ") {
		kind := regexp.MustCompile(`^\w+: (\w+)`).FindStringSubmatch(section)
		for _, row := range regexp.MustCompile("(?m)^\\| `(coterie_\\w+)` \\|").FindAllStringSubmatch(section, -1) {
			kinds[coterie.Metric(row[1])] = kind[1]
		}
	}
	return kinds
}

// constants returns the metrics of metric_names.go by the names of their constants.
func constants(t *testing.T) map[string]coterie.Metric {
	t.Helper()
	metrics := map[string]coterie.Metric{}
	for _, s := range sources(t) {
		if s.path != "metric_names.go" {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				require.NoError(t, err)
				metrics[spec.Names[0].Name] = coterie.Metric(name)
			}
			return true
		})
	}
	return metrics
}

func TestMetricConstantsSpellTheirNames(t *testing.T) {
	for constant, m := range constants(t) {
		name := strings.TrimSuffix(strings.TrimPrefix(string(m), "coterie_"), "_total")
		require.Equal(t, strings.ToLower(strings.TrimPrefix(constant, "Metric")), strings.ReplaceAll(name, "_", ""))
	}
}

// A panicking handler panics at every line.
type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool { panic("this handler takes no line") }
func (h panicking) WithAttrs([]slog.Attr) slog.Handler     { return h }

func TestDocumentedMetricsAreMeasured(t *testing.T) {
	var l ledger
	networks := make([]coterie.Network, 3)
	watched := coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		cfg.Metrics, cfg.QuotaBytes, cfg.SnapshotEntries = &l, 100_000, 20
		cfg.Logger = slog.New(panicking{slog.DiscardHandler})
		networks[i] = cfg.Network
	})
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		watch := n.WatchChan(t.Context(), "k")
		synctest.Wait()
		for i := range 50 {
			put(t, n, "k", fmt.Sprint(i))
		}
		next(t, watch)
		grant(t, n, time.Hour)
		fill(t, n)
		stranger, err := networks[0].Dial(t.Context(), "node2:1")
		require.NoError(t, err)
		_, err = stranger.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		require.NoError(t, err)
		time.Sleep(3 * time.Second) // metrics are delivered once a second; values lost in one delivery are counted in the next

		c.Crash(c.Index(c.Leader()))
		c.Partition([]int{0}, []int{1}, []int{2})
		for _, patience := range []time.Duration{100 * time.Millisecond, 10 * time.Second, time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_, err = n.Delete(ctx, "k")
			require.Error(t, err)
			cancel()
		}
		c.Heal()
		c.Leader()
		time.Sleep(time.Second)
	}, watched)
	kinds := documented(t)
	require.Empty(t, l.bad)
	require.Equal(t, kinds, l.kinds)
	require.ElementsMatch(t, slices.Collect(maps.Keys(kinds)), slices.Collect(maps.Values(constants(t))))
	for m, kind := range kinds {
		require.Equal(t, kind == "Add", strings.HasSuffix(string(m), "_total"), m)
	}
}

func TestMetricsCountCalls(t *testing.T) {
	var r coterie.ExpvarMetrics
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		applied := r.Value(coterie.MetricEntriesApplied)
		c.SlowDisk(0, 100*time.Millisecond)
		watch := n.WatchChan(t.Context(), "k")
		for range 10 {
			put(t, n, "k", "v")
			next(t, watch)
		}
		c.SlowDisk(0, 0)
		time.Sleep(time.Second) // the node is still writing how far its log reaches
		c.StallDisk(0, true)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		go n.Put(ctx, "k", "w")
		time.Sleep(1200 * time.Millisecond)
		require.EqualValues(t, 1, r.Value(coterie.MetricPendingCalls))
		require.Positive(t, r.Value(coterie.MetricPendingBytes))
		<-ctx.Done()
		synctest.Wait()
		c.StallDisk(0, false)
		for range 2 {
			_, err := n.Put(t.Context(), "k", "w")
			require.NoError(t, err)
		}
		for range 3 { // one write was applied after its call had ended
			next(t, watch)
		}
		time.Sleep(2 * time.Second)

		s := n.Status()
		require.EqualValues(t, 12, r.Value(coterie.MetricProposalsApplied))
		require.EqualValues(t, 1, r.Value(coterie.MetricProposalsUncertain))
		require.Zero(t, r.Value(coterie.MetricProposalsRefused))
		require.Zero(t, r.Value(coterie.MetricPendingCalls))
		require.Zero(t, r.Value(coterie.MetricPendingBytes))
		require.EqualValues(t, 12, r.Value(coterie.MetricProposalSeconds+"_count"))
		require.GreaterOrEqual(t, r.Value(coterie.MetricProposalSeconds+"_sum"), 1.0, "each write takes a tenth of a second")
		require.GreaterOrEqual(t, r.Value(coterie.MetricLogWriteSeconds+"_max"), 1.0, "one write of the log hung")
		require.EqualValues(t, 14, r.Value(coterie.MetricBatchProposals+"_sum"), "12 writes answered, one uncertain, and the registration of the proposer")
		require.GreaterOrEqual(t, r.Value(coterie.MetricEntriesApplied)-applied, 14.0)
		require.EqualValues(t, 13, r.Value(coterie.MetricWatchEvents))
		require.EqualValues(t, 1, r.Value(coterie.MetricLeaderChanges))
		require.EqualValues(t, 1, r.Value(coterie.MetricElections))
		require.EqualValues(t, 1, r.Value(coterie.MetricLeading))
		require.EqualValues(t, s.Revision, r.Value(coterie.MetricRevision))
		require.EqualValues(t, s.Bytes, r.Value(coterie.MetricStoreBytes))
		require.EqualValues(t, 1, r.Value(coterie.MetricKeys))
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Metrics, cfg.DiskTimeout = &r, time.Hour }))
}

func TestExpvarMetricsIsAnExpvar(t *testing.T) {
	var r coterie.ExpvarMetrics
	var v expvar.Var = &r
	require.JSONEq(t, `{}`, (&coterie.ExpvarMetrics{}).String())
	r.Add("a_total", 1)
	r.Add("a_total", 2)
	r.Set("b", 5)
	r.Set("b", 4)
	r.Observe("c_seconds", 2)
	r.Observe("c_seconds", 1)
	require.JSONEq(t, `{"a_total": 3, "b": 4, "c_seconds_count": 2, "c_seconds_sum": 3, "c_seconds_max": 2}`, v.String())
	require.True(t, json.Valid([]byte(v.String())))
	require.EqualValues(t, 4, r.Value("b"))
}

// Package expvar serves /debug/vars as soon as it is imported.
func TestImportHasNoSideEffect(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test() && s.path != "etcdapi/debug.go" { // there the client of Prometheus imports it anyway
			require.NotContains(t, s.imports(), "expvar", s.path)
		}
	}
}

// BenchmarkPut shows the cost of measuring, beside a node without Config.Metrics.
func BenchmarkPut(b *testing.B) {
	for name, metrics := range map[string]coterie.Metrics{"unmeasured": nil, "measured": &coterie.ExpvarMetrics{}} {
		b.Run(name, func(b *testing.B) {
			n := open(b, func(cfg *coterie.Config) { cfg.Metrics = metrics })
			b.SetParallelism(500)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := n.Put(b.Context(), "k", "v"); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
