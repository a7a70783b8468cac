// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// etcdFlags returns etcd's flags with their defaults. A test of module difftest compares the list with etcd's source.
func etcdFlags(t *testing.T) map[string]string {
	text, err := os.ReadFile("testdata/etcd-flags.txt")
	require.NoError(t, err)
	flags := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		require.True(t, ok, line)
		flags[name] = value
	}
	return flags
}

func TestEveryFlagOfEtcdIsKnown(t *testing.T) {
	ours := newFlags(&Settings{})
	theirs := etcdFlags(t)
	require.Greater(t, len(theirs), 100)
	for name, value := range theirs {
		f := ours.Lookup(name)
		require.NotNil(t, f, "coteried neither has --%s nor refuses it", name)
		require.Equal(t, value, f.DefValue, name)
	}
	ours.VisitAll(func(f *flag.Flag) { require.Contains(t, theirs, f.Name, "etcd has no such flag") })
}

func TestRefusedFlagsHaveAdvice(t *testing.T) {
	for _, r := range refused {
		other := "7"
		if r.boolean {
			other = map[string]string{"true": "false", "false": "true"}[r.value]
		}
		_, err := Parse([]string{"--" + r.name + "=" + other}, nil)
		var refusal *RefusedError
		require.ErrorAs(t, err, &refusal, r.name)
		require.Equal(t, r.name, refusal.Flag)
		require.Contains(t, err.Error(), "--"+r.name+"="+other)
		require.Greater(t, len(refusal.Advice), 10)
		_, err = Parse([]string{"--" + r.name + "=" + r.value}, nil)
		require.NoError(t, err, "etcd's default may be given")
	}
	_, err := Parse([]string{"--memory-mlock", "--wal-dir", "w"}, nil)
	require.ErrorContains(t, err, "--memory-mlock=true")
	require.ErrorContains(t, err, "--wal-dir=w")
}

func TestDefaultsAreThoseOfEtcd(t *testing.T) {
	s, err := Parse(nil, nil)
	require.NoError(t, err)
	require.Equal(t, "default.etcd", s.DataDir)
	require.Equal(t, []string{"http://localhost:2379"}, s.Listen.AdvertiseClient.strings())
	require.Empty(t, s.Cluster.Members, "the member itself")
	require.Empty(t, s.Warnings)
}

func TestFlagsHaveTheFormsOfEtcd(t *testing.T) {
	for _, args := range [][]string{
		{"--name=b", "--client-cert-auth=false"},
		{"-name", "b", "-client-cert-auth=false"},
		{"--name", "a", "--name", "b"},
	} {
		s, err := Parse(args, nil)
		require.NoError(t, err)
		require.Equal(t, "b", s.Name)
		require.Equal(t, "b.etcd", s.DataDir)
	}
	_, err := Parse([]string{"--no-such-flag"}, nil)
	require.ErrorContains(t, err, "-no-such-flag")
	_, err = Parse([]string{"start"}, nil)
	require.ErrorContains(t, err, `"start" is not a valid flag`)
	_, err = Parse([]string{"--snapshot-count=many"}, nil)
	require.ErrorContains(t, err, "snapshot-count")
	_, err = Parse([]string{"--help"}, nil)
	require.ErrorIs(t, err, flag.ErrHelp)
	s, err := Parse([]string{"--version"}, []string{"ETCD_NAME=c"})
	require.NoError(t, err)
	require.True(t, s.Version)
}

func TestURLsKeepTheirOrder(t *testing.T) {
	s, err := Parse([]string{
		"--listen-client-urls=http://10.0.0.1:2379, http://127.0.0.1:2379,http://10.0.0.1:2379,unix:///run/m0",
		"--advertise-client-urls=http://10.0.0.1:2379",
	}, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"http://10.0.0.1:2379", "http://127.0.0.1:2379", "unix:///run/m0"}, s.Listen.Client.strings())
}

func TestEnvironmentSetsFlags(t *testing.T) {
	s, err := Parse([]string{"--name=b"}, []string{"ETCD_DATA_DIR=d", "ETCD_ELECTION_TIMEOUT=2000", "HOME=/", "ETCD_NAMES=x", "ETCD_CERT_FILE="})
	require.NoError(t, err)
	require.Equal(t, "d", s.DataDir)
	require.EqualValues(t, 2000, s.ElectionMs)
	require.Equal(t, []string{"unrecognized environment variable ETCD_NAMES"}, s.Warnings)
	s, err = Parse(nil, []string{"ETCD_NAME=", "ETCD_ELECTION_TIMEOUT=", "ETCD_WAL_DIR="})
	require.NoError(t, err, "an empty variable sets nothing, as in etcd")
	require.Equal(t, defaultName, s.Name)
	require.EqualValues(t, 1000, s.ElectionMs)
	_, err = Parse(nil, []string{"ETCD_ELECTION_TIMEOUT=soon"})
	require.ErrorContains(t, err, "ETCD_ELECTION_TIMEOUT")
	_, err = Parse(nil, []string{"ETCD_WAL_DIR=w"})
	var refusal *RefusedError
	require.ErrorAs(t, err, &refusal)
}

func TestVariableAndFlagConflict(t *testing.T) {
	_, err := Parse([]string{"--name=b"}, []string{"ETCD_NAME=b"})
	var conflict *ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, ConflictError{"ETCD_NAME", "name"}, *conflict)
}

func TestWrongSettingsAreRejected(t *testing.T) {
	for text, args := range map[string]string{
		"expected IP in URL for binding":    "--listen-peer-urls=http://example.com:2380",
		`form "host:port"`:                  "--listen-client-urls=http://10.0.0.1",
		"--listen-client-urls has":          "--listen-metrics-urls=http://localhost:2379",
		"members talk over TCP":             "--listen-peer-urls=unix://a",
		"unexpected empty host":             "--initial-advertise-peer-urls=http://:2380",
		"is required when":                  "--listen-client-urls=http://127.0.0.1:2379",
		"at least as 5 times":               "--heartbeat-interval=500",
		"heartbeat-interval must be >0":     "--heartbeat-interval=0",
		"is too long":                       "--election-timeout=60000",
		"is too short":                      "--election-timeout=10 --heartbeat-interval=2",
		"unknown auto-compaction-mode":      "--auto-compaction-mode=never",
		"not a number of revisions":         "--auto-compaction-mode=revision --auto-compaction-retention=1h",
		"--auto-compaction-retention: time": "--auto-compaction-retention=soon",
		"must be 2562047 at most":           "--auto-compaction-retention=5124096", // would wrap around to 25 minutes
		"is negative":                       "--auto-compaction-retention=-1h",
		"must both be present":              "--cert-file=a",
		"needs the CAs":                     "--client-cert-auth",
		"with HTTPS scheme":                 "--listen-client-urls=https://127.0.0.1:2379 --advertise-client-urls=https://127.0.0.1:2379",
		"peer-trusted-ca-file is required":  "--listen-peer-urls=https://127.0.0.1:2380 --initial-advertise-peer-urls=https://127.0.0.1:2380 --peer-cert-file=a --peer-key-file=b",
		"both must have TLS":                "--initial-advertise-peer-urls=https://127.0.0.1:2380",
		"exclude each other":                "--peer-cert-allowed-cn=a --peer-cert-allowed-hostname=b --peer-trusted-ca-file=c",
		"unknown logger":                    "--logger=slog",
		"unknown log-level":                 "--log-level=trace",
		"unknown log-format":                "--log-format=xml",
		"unknown metrics":                   "--metrics=all",
		"choose one of":                     "--initial-cluster=default=http://localhost:2380 --discovery-srv=example.com",
		"must be one of new, existing":      "--initial-cluster-state=old",
		"64 MiB":                            "--max-request-bytes=100000000",
		"unexpected TLS version":            "--tls-min-version=TLS1.1",
		"is greater than max version":       "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
		"cipher suites cannot be":           "--tls-min-version=TLS1.3 --cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
		"unexpected TLS cipher suite":       "--cipher-suites=ROT13",
		"must be >0 (set to 0s)":            "--compact-hash-check-time=0s",
		"corrupt-check-time is negative":    "--corrupt-check-time=-1s",
		"self-signed-cert-validity must":    "--self-signed-cert-validity=0",
		"unrecognized feature gate":         "--feature-gates=Magic=true",
		"invalid value of CompactHashCheck": "--feature-gates=CompactHashCheck",
		"names in certificates need":        "--client-cert-allowed-hostname=a",
	} {
		_, err := Parse(strings.Fields(args), nil)
		require.ErrorContains(t, err, text, args)
	}
	_, err := Parse([]string{"--listen-client-urls=http://127.0.0.1:2379"}, nil)
	require.ErrorIs(t, err, ErrAdvertiseClientURLs)
	_, err = Parse([]string{"--initial-cluster=a=http://a:1", "--discovery-srv=example.com"}, nil)
	require.ErrorIs(t, err, ErrBootstrapFlags)
}

func TestRetentionHasItsUnits(t *testing.T) {
	for _, c := range []struct {
		mode, retention string
		age             time.Duration
		revisions       int64
	}{
		{"periodic", "0", 0, 0}, {"periodic", "2", 2 * time.Hour, 0}, {"periodic", "5m", 5 * time.Minute, 0}, {"revision", "1000", 0, 1000},
	} {
		s, err := Parse([]string{"--auto-compaction-mode", c.mode, "--auto-compaction-retention", c.retention}, nil)
		require.NoError(t, err)
		age, revisions, err := s.retention()
		require.NoError(t, err)
		require.Equal(t, c.age, age)
		require.Equal(t, c.revisions, revisions)
	}
}

func TestUsageListsTheFlags(t *testing.T) {
	var text strings.Builder
	writeUsage(&text)
	require.Contains(t, text.String(), "--data-dir ''")
	require.NotContains(t, text.String(), "--wal-dir")
}

func TestFeatureGates(t *testing.T) {
	s, err := Parse([]string{"--feature-gates=InitialCorruptCheck=true, CompactHashCheck=true,FastLeaseKeepAlive=true", "--corrupt-check-time=1h"}, nil)
	require.NoError(t, err)
	require.True(t, s.Checks.Initial)
	require.Equal(t, time.Minute, s.Checks.interval(), "the shorter one")
	s, err = Parse([]string{"--corrupt-check-time=1h"}, nil)
	require.NoError(t, err)
	require.Equal(t, time.Hour, s.Checks.interval())
	_, err = Parse([]string{"--feature-gates", "LeaseCheckpoint=true,TxnModeWriteWithSharedBuffer=false"}, nil)
	require.ErrorContains(t, err, "--feature-gates=LeaseCheckpoint=true: ")
	require.ErrorContains(t, err, "--feature-gates=TxnModeWriteWithSharedBuffer=false: ")
}
