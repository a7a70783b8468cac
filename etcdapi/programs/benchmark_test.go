// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

var (
	total  = flag.Int("total", 200, "requests of each command of the benchmark")
	rounds = flag.Int("rounds", 1, "how often the benchmark runs each command on each store")
)

// TestBenchmarkRunsOnThreeMembers runs four commands of etcd's benchmark on three etcds and on three coterieds, all in
// their default configuration. It fails if the benchmark reports an error, and logs the figures as a table for
// docs/performance.md.
func TestBenchmarkRunsOnThreeMembers(t *testing.T) {
	stores := [2][]*server{startMembers(t, etcd, 3), startMembers(t, coteried, 3)}
	for _, members := range stores {
		_, err := members[0].Put(t.Context(), "foo", strings.Repeat("v", 256)) // the key of the ranges
		require.NoError(t, err)
	}
	put := []string{"put", "--key-size=8", "--sequential-keys", "--val-size=256"}
	var table strings.Builder
	for _, c := range []struct {
		name   string
		leader bool // the leader is the only endpoint
		args   []string
	}{
		{"put to the leader", true, put},
		{"put to all members", false, put},
		{"linearizable range of one key", false, []string{"range", "foo", "--consistency=l"}},
		{"serializable range of one key", false, []string{"range", "foo", "--consistency=s"}},
	} {
		var runs [2][]figures
		for range *rounds {
			for i, members := range stores {
				if c.leader {
					members = []*server{leader(t, members)}
				}
				runs[i] = append(runs[i], measure(t, stores[i], endpoints(members), c.args))
			}
		}
		table.WriteString(row(c.name, runs))
	}
	t.Logf("%d requests of each command, %d rounds:\n"+
		"| command | requests a second: etcd, coterie | ratio (spread) | average latency | ratio | CPU of three servers a request | ratio |\n"+
		"| --- | --- | --- | --- | --- | --- | --- |\n%s", *total, *rounds, &table)
}

// startMembers starts processes that are the members of one cluster, until the end of the test.
func startMembers(t *testing.T, pkg string, n int) (members []*server) {
	t.Helper()
	var peers, entries []string
	for i := range n {
		peers = append(peers, "http://"+processtest.FreeAddr(t))
		entries = append(entries, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i, peer := range peers {
		members = append(members, launch(t, pkg, fmt.Sprint("m", i), filepath.Join(t.TempDir(), "data"), "http://"+processtest.FreeAddr(t), peer,
			"--initial-cluster", strings.Join(entries, ",")))
	}
	for _, m := range members {
		m.await(t)
	}
	return members
}

// leader returns the member that leads.
func leader(t *testing.T, members []*server) *server {
	t.Helper()
	for _, m := range members {
		status, err := m.Status(t.Context(), m.client)
		require.NoError(t, err)
		if status.Leader == status.Header.MemberId {
			return m
		}
	}
	require.Fail(t, "no member leads")
	return nil
}

func endpoints(members []*server) string {
	var urls []string
	for _, m := range members {
		urls = append(urls, m.client)
	}
	return strings.Join(urls, ",")
}

// figures are the results of one run of a command.
type figures struct {
	rate    float64 // requests a second
	latency float64 // average, in seconds
	cpu     float64 // seconds of all servers a request; NaN if the system has no /proc
}

// measure runs a command of the benchmark on endpoints of a store.
func measure(t *testing.T, members []*server, endpoints string, args []string) figures {
	t.Helper()
	args = append([]string{"--endpoints=" + endpoints, "--conns=100", "--clients=1000"}, args...)
	args = append(args, fmt.Sprint("--total=", *total))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, benchmark), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	before := cpuSeconds(members)
	err := cmd.Run()
	after := cpuSeconds(members)
	require.NoError(t, err, "benchmark %q: %s%s", args, &stdout, &stderr)
	require.NotContains(t, stdout.String(), "Error distribution", "benchmark %q", args)
	return figures{
		rate: reported(t, stdout.String(), "Requests/sec"), latency: reported(t, stdout.String(), "Average"),
		cpu: (after - before) / float64(*total),
	}
}

// reported returns a figure of the summary that the benchmark prints.
func reported(t *testing.T, output, name string) float64 {
	t.Helper()
	m := regexp.MustCompile(name + `:\s+([0-9.]+[0-9])`).FindStringSubmatch(output)
	require.NotNil(t, m, "no %s in %s", name, output)
	v, err := strconv.ParseFloat(m[1], 64)
	require.NoError(t, err)
	return v
}

// ticks is the number of units of CPU time in /proc in a second: USER_HZ of Linux on the architectures that Go supports.
const ticks = 100

// cpuSeconds returns the CPU time that servers have used, NaN if the system has no /proc.
func cpuSeconds(servers []*server) (sum float64) {
	for _, s := range servers {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Cmd.Process.Pid))
		if err != nil {
			return math.NaN()
		}
		// The name of the program, in parentheses, may have spaces. The user and the system time are fields 14 and 15 of
		// the line, so 11 and 12 of those after the name.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, f := range fields[11:13] {
			v, err := strconv.ParseFloat(f, 64)
			if err != nil {
				return math.NaN()
			}
			sum += v / ticks
		}
	}
	return sum
}

// row returns the medians of the runs on etcd and on coterie, with their ratios. The spread is that of the ratios of
// single rounds.
func row(name string, runs [2][]figures) string {
	median := func(figure func(f figures) float64) (both [2]float64, ratio float64) {
		for i := range runs {
			var values []float64
			for _, f := range runs[i] {
				values = append(values, figure(f))
			}
			slices.Sort(values)
			n := len(values)
			both[i] = (values[(n-1)/2] + values[n/2]) / 2
		}
		return both, both[1] / both[0]
	}
	var ratios []float64
	for i := range runs[0] {
		ratios = append(ratios, runs[1][i].rate/runs[0][i].rate)
	}
	rate, rateRatio := median(func(f figures) float64 { return f.rate })
	latency, latencyRatio := median(func(f figures) float64 { return f.latency * 1e3 })
	cpu, cpuRatio := median(func(f figures) float64 { return f.cpu * 1e6 })
	return fmt.Sprintf("| %s | %.0f, %.0f | %.2f (%.2f to %.2f) | %.1f ms, %.1f ms | %.2f | %.0f µs, %.0f µs | %.2f |\n",
		name, rate[0], rate[1], rateRatio, slices.Min(ratios), slices.Max(ratios), latency[0], latency[1], latencyRatio,
		cpu[0], cpu[1], cpuRatio)
}
