// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A CompareMembersResponse answers [Node.CompareMembers].
type CompareMembersResponse struct {
	Header
	HashRevision int64 `json:"hashRevision"`
	// Hashes are those of the members that answered, in the order of their IDs.
	Hashes []MemberHash `json:"hashes"`
	// Divergent are the members with another hash than the majority of Hashes, in the order of their IDs. If the
	// hashes differ and none has a majority, it is the ID 0 alone, which no member has.
	Divergent []MemberID `json:"divergent"`
}

// A MemberHash is the hash of a member's data: Hash of a HashResponse.
type MemberHash struct {
	Member MemberID `json:"member"`
	Hash   uint64   `json:"hash,string"`
}

// CompareMembers compares the keys and values that the members have at the newest revision. Members compute the same
// data from the same log, unless there is a fault of memory or a bug. Each member hashes its data beside its work, which
// takes time in proportion to the store, and CompareMembers waits for that.
//
// A member is left out if it cannot be reached, is more than half an election timeout behind, is of a version without the
// call, or has compacted the revision in the meantime. Leases, users, roles and superseded revisions are not compared. CompareMembers raises no alarm: a program can do
// that with [Node.RaiseAlarm]. To call it on one node alone, look at Role in [Node.Status].
//
// Errors: those of [Node.Ready]; *CompactedError if this node has compacted the revision in the meantime.
func (n *Node) CompareMembers(ctx context.Context) (*CompareMembersResponse, error) {
	v, err := n.latest(ctx)
	if err != nil {
		return nil, err
	}
	q := question{newDraw(), v.KV.Revision()}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan map[uint64]uint64, 1)
	go func() { answers <- n.askForHashes(asking, v.Members, q) }()
	own, err := n.Hash(ctx, q.revision)
	if err != nil {
		return nil, err
	}
	hashes := <-answers
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	hashes[uint64(n.id)] = own.Hash
	r := &CompareMembersResponse{Header: own.Header, HashRevision: q.revision, Divergent: []MemberID{}}
	for _, id := range slices.Sorted(maps.Keys(hashes)) {
		r.Hashes = append(r.Hashes, MemberHash{MemberID(id), hashes[id]})
	}
	for _, id := range membership.Divergent(hashes) {
		r.Divergent = append(r.Divergent, MemberID(id))
	}
	return r, nil
}

// askForHashes returns the hashes of the other members that answer, by their IDs.
func (n *Node) askForHashes(ctx context.Context, members state.Members, q question) map[uint64]uint64 {
	var (
		mu     sync.Mutex // guards hashes
		hashes = map[uint64]uint64{}
		asked  sync.WaitGroup
	)
	for _, m := range members {
		if m.ID == uint64(n.id) || m.Incarnation == 0 { // its node has never run
			continue
		}
		asked.Go(func() {
			hash, err := n.askForHash(ctx, MemberID(m.ID), q)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				hashes[m.ID] = hash
			}
		})
	}
	asked.Wait()
	return hashes
}

// askForHash asks a member for its hash until the member has computed it.
func (n *Node) askForHash(ctx context.Context, member MemberID, q question) (uint64, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout)
		resp, err := n.transport.call(attempt, member, methodHash, q.append(nil))
		cancel()
		if err != nil {
			return 0, err
		}
		var done bool
		var hash uint64
		r := wire.NewReader(resp)
		for r.Next() {
			switch r.Field() {
			case 1:
				done = r.Bool()
			case 2:
				hash = r.Uint()
			}
		}
		if done || r.Err() != nil {
			return hash, r.Err()
		}
	}
}

// A question is for the hash of the data at a revision. The round is random: the data may have changed since the same
// question of an earlier round, even if the revision has not.
type question struct {
	round    uint64
	revision int64
}

func (q question) append(b []byte) []byte { return wire.Uint(wire.Int(b, 1, q.revision), 2, q.round) }

func readQuestion(b []byte) (q question, err error) {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			q.revision = r.Int()
		case 2:
			q.round = r.Uint()
		}
	}
	return q, r.Err()
}

// A hasher answers questions of other members. It computes one hash at a time, and keeps the last one. Any goroutine may
// use it.
type hasher struct {
	cfg   *Config
	life  *lifecycle
	views *views

	mu   sync.Mutex // guards last
	last *dataHash  // nil: none
}

// A dataHash is the answer to a question. hash and err are set before done is closed.
type dataHash struct {
	question
	done chan struct{}
	hash uint64
	err  error
}

func newHasher(n *Node) *hasher { return &hasher{cfg: &n.cfg, life: n.life, views: n.views} }

// answer answers a question once this node has applied the revision. The answer is empty if the hash is not computed in
// time. The end of ctx does not end the computation, so that the next call finds the result.
func (h *hasher) answer(ctx context.Context, req []byte) ([]byte, error) {
	q, err := readQuestion(req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.cfg.ElectionTimeout/2)
	defer cancel()
	v, err := h.views.AwaitView(ctx, func(v *state.Summary) bool { return v.Revision >= q.revision })
	if err == nil {
		err = revisionError(v, q.revision)
	}
	if err != nil {
		return nil, err
	}
	a := h.begin(v, q)
	if a == nil {
		return nil, h.pause(ctx)
	}
	select {
	case <-a.done:
		if a.err != nil {
			return nil, a.err
		}
		return wire.Uint(wire.Bool(nil, 1, true), 2, a.hash), nil
	case <-ctx.Done():
		return nil, nil
	case <-h.life.Closing():
		return nil, h.life.Err()
	}
}

// pause waits for the end of ctx, or for a computation.
func (h *hasher) pause(ctx context.Context) error {
	h.mu.Lock()
	done := h.last.done
	h.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	case <-h.life.Closing():
		return h.life.Err()
	}
	return nil
}

// begin returns the computation of an answer, which it starts unless the last question was the same. It returns nil while
// another one is under way.
func (h *hasher) begin(v *state.View, q question) *dataHash {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil && h.last.question != q {
		select {
		case <-h.last.done:
		default:
			return nil
		}
	}
	if h.last == nil || h.last.question != q {
		a := &dataHash{question: q, done: make(chan struct{})}
		h.last = a
		h.life.Go(func() {
			defer close(a.done)
			var hash uint64 // not a.hash: the function may outlive the node
			a.err = h.life.await(h.life.Context(), func() error { hash = v.KV.Hash(q.revision); return nil })
			if a.err == nil {
				a.hash = hash
			}
		})
	}
	return h.last
}
