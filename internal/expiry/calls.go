// SPDX-License-Identifier: Apache-2.0

package expiry

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie/internal/wire"
)

// The calls about leases ask for many at once: their IDs, followed by 0, which is no lease's ID. Nodes of an
// earlier version asked for a single lease and did not write the 0. A leader answers them in their way. As a
// leader, such a node answers only the first ID, and the others are asked for in further calls.

// A Renewal is the answer to one: the TTL that the lease has again, or why it has none.
type Renewal time.Duration

const (
	Unknown Renewal = 0 // there is no such lease
	Ending  Renewal = 1 // its expiry was proposed: ask again when the outcome is known
)

// A Lifetime is what the leader knows about a lease.
type Lifetime struct {
	TTL, Left time.Duration // a TTL of 0: there is no such lease
	Index     uint64        // of the log, at which it was so
}

// Request encodes a request for leases.
func Request(ids []int64) (b []byte) {
	for _, id := range ids {
		b = binary.AppendUvarint(b, uint64(id))
	}
	return append(b, 0)
}

// ReadRequest decodes a request for at most limit leases; single says that the caller expects the answer for
// one lease.
func ReadRequest(b []byte, limit int) (ids []int64, single bool) {
	for len(ids) < limit {
		id, size := binary.Uvarint(b)
		if size <= 0 {
			return append(ids, 0)[:1], true // what cannot be read is lease 0, which does not exist
		}
		if id == 0 {
			break
		}
		ids, b = append(ids, int64(id)), b[size:]
	}
	return ids, false
}

// AppendRenewals encodes the answer to a request.
func AppendRenewals(b []byte, renewals []Renewal) []byte {
	for _, r := range renewals {
		b = binary.AppendUvarint(b, uint64(r))
	}
	return b
}

// ReadRenewals decodes the answer to a request for a number of leases.
func ReadRenewals(b []byte, asked int) (renewals []Renewal, err error) {
	for len(b) > 0 {
		ttl, size := binary.Uvarint(b)
		if size <= 0 {
			return nil, wire.ErrMalformed
		}
		renewals, b = append(renewals, Renewal(ttl)), b[size:]
	}
	return checkAnswers(renewals, asked)
}

// checkAnswers rejects a reply that answers nothing, or more than was asked.
func checkAnswers[A any](answers []A, asked int) ([]A, error) {
	if len(answers) == 0 || len(answers) > asked {
		return nil, fmt.Errorf("%w: %d answers to %d questions", wire.ErrMalformed, len(answers), asked)
	}
	return answers, nil
}

// AppendLifetimes encodes the answer to a request; single says that the caller expects one lease.
func AppendLifetimes(b []byte, lifetimes []Lifetime, single bool) []byte {
	if single {
		return lifetimes[0].append(b)
	}
	for _, l := range lifetimes {
		b = wire.Message(b, 4, l.append)
	}
	return b
}

// ReadLifetimes decodes the answer to a request for a number of leases.
func ReadLifetimes(b []byte, asked int) ([]Lifetime, error) {
	first, all, err := readLifetime(b)
	if err != nil {
		return nil, err
	}
	if first.TTL > 0 { // the leader is of an earlier version
		all = []Lifetime{first}
	}
	return checkAnswers(all, asked)
}

func (l Lifetime) append(b []byte) []byte {
	b = wire.Int(b, 1, int64(l.TTL))
	b = wire.Int(b, 2, int64(l.Left))
	return wire.Uint(b, 3, l.Index)
}

// readLifetime decodes a single lifetime, or the list that an answer for many leases is.
func readLifetime(b []byte) (single Lifetime, many []Lifetime, err error) {
	fields := wire.NewReader(b)
	for fields.Next() {
		switch fields.Field() {
		case 1:
			single.TTL = time.Duration(fields.Int())
		case 2:
			single.Left = time.Duration(fields.Int())
		case 3:
			single.Index = fields.Uint()
		case 4:
			l, _, err := readLifetime(fields.Bytes())
			if err != nil {
				return Lifetime{}, nil, err
			}
			many = append(many, l)
		}
	}
	return single, many, fields.Err()
}
