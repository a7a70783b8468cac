// SPDX-License-Identifier: Apache-2.0

package coterie

// A Metric is the name of something that a node measures, in the manner of Prometheus.
//
// The constant for a metric is its name in camel case, without the prefix coterie_ and without the suffix
// _total of a counter. Names of distributions and gauges end with their unit where they have one. The table
// in docs/metrics.md says what each metric means and when to raise an alert.
type Metric string

// Counters. They come to [Metrics.Add].
const (
	MetricProposalsApplied   Metric = "coterie_proposals_applied_total"
	MetricProposalsRefused   Metric = "coterie_proposals_refused_total"
	MetricProposalsGivenUp   Metric = "coterie_proposals_given_up_total"
	MetricProposalsUncertain Metric = "coterie_proposals_uncertain_total"
	MetricEntriesApplied     Metric = "coterie_entries_applied_total"
	MetricWatchEvents        Metric = "coterie_watch_events_total"
	MetricLeaderChanges      Metric = "coterie_leader_changes_total"
	MetricElections          Metric = "coterie_elections_total"
	MetricConnectionsRefused Metric = "coterie_connections_refused_total"
	MetricCallsFailed        Metric = "coterie_calls_failed_total"
	MetricHeartbeatsFailed   Metric = "coterie_heartbeats_failed_total"
	MetricPeerSentBytes      Metric = "coterie_peer_sent_bytes_total"
	MetricPeerReceivedBytes  Metric = "coterie_peer_received_bytes_total"
	MetricLogDropped         Metric = "coterie_log_dropped_total"
	MetricMetricsDropped     Metric = "coterie_metrics_dropped_total"
)

// Distributions. They come to [Metrics.Observe].
const (
	MetricProposalSeconds  Metric = "coterie_proposal_seconds"
	MetricBatchProposals   Metric = "coterie_batch_proposals"
	MetricHeartbeatSeconds Metric = "coterie_heartbeat_seconds"
	MetricLogWriteSeconds  Metric = "coterie_log_write_seconds"
	MetricLogWriteBytes    Metric = "coterie_log_write_bytes"
	MetricSnapshotSeconds  Metric = "coterie_snapshot_seconds"
	MetricSnapshotBytes    Metric = "coterie_snapshot_bytes"
)

// Gauges. They come to [Metrics.Set].
const (
	MetricLeading            Metric = "coterie_leading"
	MetricTerm               Metric = "coterie_term"
	MetricRevision           Metric = "coterie_revision"
	MetricKeys               Metric = "coterie_keys"
	MetricLeases             Metric = "coterie_leases"
	MetricWatchers           Metric = "coterie_watchers"
	MetricStoreBytes         Metric = "coterie_store_bytes"
	MetricQuotaRatio         Metric = "coterie_quota_ratio"
	MetricPendingCalls       Metric = "coterie_pending_calls"
	MetricPendingBytes       Metric = "coterie_pending_bytes"
	MetricApplyLagEntries    Metric = "coterie_apply_lag_entries"
	MetricLastContactSeconds Metric = "coterie_last_contact_seconds"
	MetricDiskRefusedSeconds Metric = "coterie_disk_refused_seconds"
	MetricDiskStalledSeconds Metric = "coterie_disk_stalled_seconds"
)
