// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"strconv"
)

// A refusedFlag is a flag of etcd that coteried does not have. It may be given with etcd's default, which has no
// effect.
type refusedFlag struct {
	name, value string // value is etcd's default
	boolean     bool
	advice      string
}

// A RefusedError says that a flag of etcd has a value that coteried cannot honour.
type RefusedError struct {
	Flag, Value string
	Advice      string // the thing to do instead
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("--%s=%s: coteried does not have this flag of etcd: %s", e.Flag, e.Value, e.Advice)
}

const (
	noBackend   = "it has no bbolt backend, so remove the flag"
	noDiscovery = "use --initial-cluster or --discovery-srv"
	noTracing   = "it exports no traces, so remove the flag"
	noRotation  = "rotate the file with logrotate and copytruncate, or log to stderr and let the service manager rotate"
)

// refused are etcd's flags that coteried does not have.
var refused = []refusedFlag{
	{"wal-dir", "", false, "log and data are in one directory, so put --data-dir on the faster disk"},
	{"max-snapshots", "5", false, "it keeps the snapshots that it needs, so remove the flag"},
	{"max-wals", "5", false, "it keeps the log that it needs, so remove the flag"},
	{"initial-election-tick-advance", "true", true, "a founder does not wait for an election timeout, so remove the flag"},
	{"backend-bbolt-freelist-type", "", false, noBackend},
	{"backend-batch-interval", "0s", false, noBackend},
	{"backend-batch-limit", "0", false, noBackend},
	{"bootstrap-defrag-threshold-megabytes", "0", false, noBackend},
	{"compaction-batch-limit", "0", false, "a compaction does not block other calls, so remove the flag"},
	{"compaction-sleep-interval", "0s", false, "a compaction does not block other calls, so remove the flag"},
	{"memory-mlock", "false", true, "turn swapping off, or limit it with MemorySwapMax= of systemd"},
	{"socket-reuse-port", "false", true, "remove the flag"},
	{"socket-reuse-address", "false", true, "Go sets SO_REUSEADDR already, so remove the flag"},
	{"raft-read-timeout", "5s", false, "the timeouts of connections follow from --election-timeout"},
	{"raft-write-timeout", "5s", false, "the timeouts of connections follow from --election-timeout"},
	{"snapshot-catchup-entries", "5000", false, "it keeps 10,000 entries, or 64 MiB, after a snapshot, so remove the flag"},
	{"max-learners", "1", false, "it has no limit of learners, so remove the flag"},
	{"discovery-endpoints", "", false, noDiscovery},
	{"discovery-token", "", false, noDiscovery},
	{"discovery-dial-timeout", "2s", false, noDiscovery},
	{"discovery-request-timeout", "5s", false, noDiscovery},
	{"discovery-keepalive-time", "2s", false, noDiscovery},
	{"discovery-keepalive-timeout", "6s", false, noDiscovery},
	{"discovery-insecure-transport", "true", true, noDiscovery},
	{"discovery-insecure-skip-tls-verify", "false", true, noDiscovery},
	{"discovery-cert", "", false, noDiscovery},
	{"discovery-key", "", false, noDiscovery},
	{"discovery-cacert", "", false, noDiscovery},
	{"discovery-user", "", false, noDiscovery},
	{"discovery-password", "", false, noDiscovery},
	{"discovery-fallback", "exit", false, noDiscovery},
	{"strict-reconfig-check", "true", true, "it never makes a change of members that could cost the majority, so remove the flag"},
	{"pre-vote", "true", true, "it always asks for votes in advance, so remove the flag"},
	{"client-cert-file", "", false, "the JSON gateway calls the node without a connection, so remove the flag"},
	{"client-key-file", "", false, "the JSON gateway calls the node without a connection, so remove the flag"},
	{"peer-client-cert-file", "", false, "a member presents the certificate of --peer-cert-file in both directions"},
	{"peer-client-key-file", "", false, "a member presents the certificate of --peer-cert-file in both directions"},
	{"peer-crl-file", "", false, "it has no revocation between members: issue new certificates from a new CA"},
	{"peer-skip-client-san-verification", "false", true, "it does not compare the names in the certificate of a caller with its address, so remove the flag"},
	{"enable-log-rotation", "false", true, noRotation},
	{"log-rotation-config-json", `{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}`, false, noRotation},
	{"enable-grpc-gateway", "true", true, "the gateway cannot be turned off; --listen-client-http-urls moves it to another address"},
	{"enable-distributed-tracing", "false", true, noTracing},
	{"distributed-tracing-address", "localhost:4317", false, noTracing},
	{"distributed-tracing-service-name", "etcd", false, noTracing},
	{"distributed-tracing-instance-id", "", false, noTracing},
	{"distributed-tracing-sampling-rate", "0", false, noTracing},
	{"downgrade-check-time", "5s", false, "it has no downgrades, so remove the flag"},
	{"warning-apply-duration", "100ms", false, "look at the metrics of docs/metrics.md instead"},
	{"warning-unary-request-duration", "300ms", false, "look at grpc_server_handling_seconds with --metrics=extensive instead"},
	{"unsafe-no-fsync", "false", true, "it acknowledges only writes that are on disk, so remove the flag"},
	{"v2-deprecation", "", false, "etcd ignores this flag, too, so remove it"},
}

// A refusedValue is the value of a refused flag. Setting it never fails, so that one run reports all refused flags.
type refusedValue struct {
	refusedFlag
	settings *Settings
}

func (v *refusedValue) Set(text string) error {
	if !v.isDefault(text) {
		v.settings.refusals = append(v.settings.refusals, &RefusedError{v.name, text, v.advice})
	}
	return nil
}

func (v *refusedValue) String() string   { return v.value }
func (v *refusedValue) IsBoolFlag() bool { return v.boolean }

// isDefault reports whether a value means etcd's default.
func (v *refusedValue) isDefault(text string) bool {
	if v.boolean {
		is, err := strconv.ParseBool(text)
		return err == nil && strconv.FormatBool(is) == v.value
	}
	return text == v.value
}
