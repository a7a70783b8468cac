// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie/internal/wire"
)

// The calls about leases ask for many at once: their IDs, and then 0, which is the ID of none. Nodes
// once asked for a single lease and did not write the 0. A leader answers them in their way; as a
// leader, such a node answers the first ID alone, and the others are asked for in further calls.

func leaseRequest(ids []LeaseID) (b []byte) {
	for _, id := range ids {
		b = binary.AppendUvarint(b, uint64(id))
	}
	return append(b, 0)
}

// leasesFrom reads a request; single says that the caller expects the answer to one lease.
func leasesFrom(b []byte) (ids []LeaseID, single bool) {
	for len(ids) < maxQuestions {
		id, size := binary.Uvarint(b)
		if size <= 0 {
			return append(ids, 0)[:1], true // what cannot be read is lease 0, which does not exist
		}
		if id == 0 {
			break
		}
		ids, b = append(ids, LeaseID(id)), b[size:]
	}
	return ids, false
}

func (n *Node) answerRenew(ctx context.Context, req []byte) (b []byte, err error) {
	ids, single := leasesFrom(req)
	renewals, err := n.leases.renew(ctx, ids)
	if err != nil {
		return nil, err
	}
	if single {
		switch renewals[0] {
		case leaseUnknown:
			return nil, ErrLeaseNotFound
		case leaseEnding:
			return nil, errNotLeader // the caller asks again
		}
	}
	for _, r := range renewals {
		b = binary.AppendUvarint(b, uint64(r))
	}
	return b, nil
}

func (n *Node) callRenew(ctx context.Context, leader MemberID, ids []LeaseID) (renewals []renewal, err error) {
	b, err := n.call(ctx, leader, methodRenew, leaseRequest(ids))
	if errors.Is(err, ErrLeaseNotFound) {
		return []renewal{leaseUnknown}, nil // the answer to a single lease
	}
	for err == nil && len(b) > 0 {
		ttl, size := binary.Uvarint(b)
		if size <= 0 {
			return nil, wire.ErrMalformed
		}
		renewals, b = append(renewals, renewal(ttl)), b[size:]
	}
	return checkAnswers(renewals, len(ids), err)
}

// checkAnswers refuses a reply that answers nothing, or more than was asked.
func checkAnswers[A any](answers []A, questions int, err error) ([]A, error) {
	if err == nil && (len(answers) == 0 || len(answers) > questions) {
		err = fmt.Errorf("%w: %d answers to %d questions", wire.ErrMalformed, len(answers), questions)
	}
	return answers, err
}

func (n *Node) answerTimeToLive(ctx context.Context, req []byte) (b []byte, err error) {
	ids, single := leasesFrom(req)
	all, err := n.leases.timeToLive(ctx, ids)
	switch {
	case err != nil:
		return nil, err
	case single && all[0].ttl == 0:
		return nil, ErrLeaseNotFound
	case single:
		return all[0].append(nil), nil
	}
	for _, r := range all {
		b = wire.Message(b, 4, r.append)
	}
	return b, nil
}

func (n *Node) callTimeToLive(ctx context.Context, leader MemberID, ids []LeaseID) (all []remaining, err error) {
	b, err := n.call(ctx, leader, methodTimeToLive, leaseRequest(ids))
	if errors.Is(err, ErrLeaseNotFound) {
		return []remaining{{}}, nil // the answer to a single lease
	}
	if err != nil {
		return nil, err
	}
	first, all, err := readRemaining(b)
	if first.ttl > 0 {
		all = []remaining{first}
	}
	return checkAnswers(all, len(ids), err)
}

func (r remaining) append(b []byte) []byte {
	b = wire.Int(b, 1, int64(r.ttl))
	b = wire.Int(b, 2, int64(r.left))
	return wire.Uint(b, 3, r.index)
}

// readRemaining reads a reply: to a single lease, or to many.
func readRemaining(b []byte) (single remaining, many []remaining, err error) {
	fields := wire.NewReader(b)
	for fields.Next() {
		switch fields.Field() {
		case 1:
			single.ttl = time.Duration(fields.Int())
		case 2:
			single.left = time.Duration(fields.Int())
		case 3:
			single.index = fields.Uint()
		case 4:
			r, _, err := readRemaining(fields.Bytes())
			if err != nil {
				return remaining{}, nil, err
			}
			many = append(many, r)
		}
	}
	return single, many, fields.Err()
}
