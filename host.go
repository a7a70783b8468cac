// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A host is the node as the packages below internal/ see it: each of them declares an interface with the
// methods that it needs. The lifecycle has Context, Go, Closing and Err.
type host struct {
	*lifecycle
	n *Node
}

// For all of them.

func (h host) Leader() (leader, term uint64, self bool) {
	lead := h.n.lead.Now()
	return uint64(lead.Leader), lead.Term, lead.Self
}

func (h host) LeaderChanged() <-chan struct{}         { return h.n.lead.Changed() }
func (h host) ElectionTimeout() time.Duration         { return h.n.cfg.ElectionTimeout }
func (h host) Alive(ctx context.Context) error        { return h.n.alive(ctx) }
func (h host) ContextError(ctx context.Context) error { return h.n.contextError(ctx) }

// For internal/leader.

func (h host) Final(err error) bool { return final(err) }

// For internal/proposer.

func (h host) Applied() uint64     { return h.n.views.Summary().Index }
func (h host) Room() error         { return h.n.room() }
func (h host) Append(entry []byte) { h.n.supervisor.submit(entry) }
func (h host) Batched(calls int)   { h.n.meter.Observe(MetricBatchProposals, float64(calls)) }

func (h host) Forward(ctx context.Context, leader uint64, entry []byte) error {
	return h.n.transport.callPropose(ctx, MemberID(leader), entry)
}

// For internal/expiry.

func (h host) Confirm(ctx context.Context) (index, term uint64, err error) {
	p, err := h.n.reads.point(ctx)
	if err != nil {
		return 0, 0, err
	}
	if _, err := h.n.views.Await(ctx, p.reached); err != nil {
		return 0, 0, err
	}
	return p.index, p.term, nil
}

func (h host) Expire(ids []int64, term uint64) {
	h.n.supervisor.submit(command.OfCluster(command.Command{Expire: &command.Expire{IDs: ids, Term: term}}))
}

// For internal/retention.

func (h host) Store() *mvcc.View { return h.n.views.Load().KV }

func (h host) Compact(rev int64) {
	h.n.supervisor.submit(command.OfCluster(command.Command{Compact: &command.Compact{Revision: rev}}))
}
