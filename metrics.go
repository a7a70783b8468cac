// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"errors"
	"time"
)

// Metrics receives what a node measures of itself: [Config.Metrics]. A goroutine of the node calls its
// methods, one at a time, every second and a last time when the node has stopped. They may block or panic:
// the node does not wait for them. Counters are then added up; of distributions 8192 values wait, and
// MetricMetricsDropped counts those that are lost. Nodes that share a Metrics call it concurrently.
//
// Every name is a constant of this package and always comes to the same method; there are no labels, so
// what tells nodes apart is the caller's, who gives each node its own Metrics. See docs/metrics.md for what
// each one means; [Readings] is a Metrics for package expvar.
type Metrics interface {
	// Add adds to a counter, whose name ends in _total.
	Add(m Metric, delta float64)
	// Set says what a gauge is now.
	Set(m Metric, value float64)
	// Observe adds a value to a distribution, of seconds, bytes or numbers, as the name ends.
	Observe(m Metric, value float64)
}

// A Metric is the name of something measured, in the manner of Prometheus.
type Metric string

// Counters.
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
	MetricLogDropped         Metric = "coterie_log_dropped_total"
	MetricMetricsDropped     Metric = "coterie_metrics_dropped_total"
)

// Distributions.
const (
	MetricProposalSeconds Metric = "coterie_proposal_seconds"
	MetricBatchProposals  Metric = "coterie_batch_proposals"
	MetricLogWriteSeconds Metric = "coterie_log_write_seconds"
	MetricLogWriteBytes   Metric = "coterie_log_write_bytes"
	MetricSnapshotSeconds Metric = "coterie_snapshot_seconds"
	MetricSnapshotBytes   Metric = "coterie_snapshot_bytes"
)

// Gauges.
const (
	MetricLeading      Metric = "coterie_leading"
	MetricTerm         Metric = "coterie_term"
	MetricRevision     Metric = "coterie_revision"
	MetricKeys         Metric = "coterie_keys"
	MetricLeases       Metric = "coterie_leases"
	MetricWatchers     Metric = "coterie_watchers"
	MetricStoreBytes   Metric = "coterie_store_bytes"
	MetricQuotaRatio   Metric = "coterie_quota_ratio"
	MetricPendingCalls Metric = "coterie_pending_calls"
	MetricPendingBytes Metric = "coterie_pending_bytes"
	MetricApplyLag     Metric = "coterie_apply_lag_entries"
	MetricContact      Metric = "coterie_last_contact_seconds"
	MetricDiskRefused  Metric = "coterie_disk_refused_seconds"
	MetricDiskStalled  Metric = "coterie_disk_stalled_seconds"
)

func (n *Node) count(m Metric, delta int)       { n.meter.add(m, delta) }
func (n *Node) observe(m Metric, value float64) { n.meter.observe(m, value) }

// proposed measures a proposal that began at a time and ended with an error, or with its result.
func (n *Node) proposed(begin time.Time, err error) {
	switch {
	case err == nil:
		n.count(MetricProposalsApplied, 1)
		n.observe(MetricProposalSeconds, time.Since(begin).Seconds())
	case errors.Is(err, ErrMaybeApplied):
		n.count(MetricProposalsUncertain, 1)
	case errors.Is(err, ErrNoSpace), errors.Is(err, ErrOverloaded):
		n.count(MetricProposalsRefused, 1)
	default:
		n.count(MetricProposalsGivenUp, 1)
	}
}

// logWritten measures what the log made durable at once.
func (n *Node) logWritten(bytes int, took time.Duration) {
	n.observe(MetricLogWriteSeconds, took.Seconds())
	n.observe(MetricLogWriteBytes, float64(bytes))
}

// gauges returns what a Status measures.
func gauges(s *Status) map[Metric]float64 {
	values := map[Metric]float64{
		MetricLeading:    0,
		MetricTerm:       float64(s.Term),
		MetricRevision:   float64(s.Revision),
		MetricKeys:       float64(s.Keys),
		MetricLeases:     float64(s.Leases),
		MetricWatchers:   float64(s.Watchers),
		MetricStoreBytes: float64(s.Bytes),
		MetricApplyLag:   float64(s.lag()),

		MetricDiskRefused: s.DiskRefused.Seconds(),
		MetricDiskStalled: s.DiskStalled.Seconds(),
	}
	if s.Role == RoleLeader {
		values[MetricLeading] = 1
	}
	if s.QuotaBytes > 0 {
		values[MetricQuotaRatio] = float64(s.Bytes) / float64(s.QuotaBytes)
	}
	if s.LastContact >= 0 {
		values[MetricContact] = s.LastContact.Seconds()
	}
	return values
}

// lag is how many entries are known to be committed and not applied.
func (s *Status) lag() uint64 { return max(s.Committed, s.Applied) - s.Applied }
