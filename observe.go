// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"iter"
)

// ElectionLeader tells who leads.
type ElectionLeader struct {
	Key, Value string
	Token      int64 // the fencing token of this leadership
	Elected    bool  // false: nobody leads
}

// ObserveElection yields who leads among those who campaign under prefix, with an [Election] or
// [RunAsLeader]: now, and whenever that or the leader's value changes; that nobody leads, too. A slow
// loop sees the latest and may miss what was between. Whoever only looks on needs no session. The
// sequence may be used once; it ends with ctx or the node, with a pair whose error says which, or
// with ErrInvalidOption for an empty prefix.
func ObserveElection(ctx context.Context, n *Node, prefix string) iter.Seq2[ElectionLeader, error] {
	return func(yield func(ElectionLeader, error) bool) {
		err := observe(ctx, n, prefix, func(info ElectionLeader) bool { return yield(info, nil) })
		if err != nil {
			yield(ElectionLeader{}, err)
		}
	}
}

// Observe is [ObserveElection] of this election. The session need not live.
func (e *Election) Observe(ctx context.Context) iter.Seq2[ElectionLeader, error] {
	return ObserveElection(ctx, e.s.Node(), e.prefix)
}

// Leader tells who leads now. It is linearizable.
func (e *Election) Leader(ctx context.Context) (ElectionLeader, error) {
	info, _, err := leaderOf(ctx, e.s.Node(), e.prefix)
	return info, err
}

// leaderOf returns who leads, and at which revision.
func leaderOf(ctx context.Context, n *Node, prefix string, opts ...GetOption) (ElectionLeader, int64, error) {
	found, rev, err := places(ctx, n, prefix, 1, append(opts, WithSort(SortByCreateRevision, SortAscend))...)
	if err != nil || len(found) == 0 {
		return ElectionLeader{}, rev, err
	}
	kv := found[0]
	return ElectionLeader{Key: kv.Key, Value: kv.Value, Token: kv.CreateRevision, Elected: true}, rev, nil
}

// observe returns nil when yield returned false.
func observe(ctx context.Context, n *Node, prefix string, yield func(ElectionLeader) bool) error {
	var last ElectionLeader
	rev := int64(0) // of last
	look := func(opts ...GetOption) (more bool, err error) {
		info, seen, err := leaderOf(ctx, n, prefix, opts...)
		if err != nil {
			return false, err
		}
		changed := rev == 0 || info != last
		last, rev = info, seen
		return !changed || yield(info), nil
	}
	for {
		if more, err := look(); !more {
			return err
		}
		for r, err := range n.Watch(ctx, prefix+"/", WithPrefix(), WithRevision(rev+1)) {
			if errors.Is(err, ErrCompacted) {
				break // it was slow: what leads now is all that counts
			}
			if err != nil {
				return err
			}
			if more, err := look(WithWaitRevision(r.Revision)); !more {
				return err
			}
		}
	}
}
