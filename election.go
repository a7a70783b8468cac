// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"
)

// An Election chooses one among all who campaign under its prefix, on any node, in the order in
// which they did. Its methods may be called concurrently. See [RunAsLeader] for the usual case.
type Election struct {
	s      *Session
	prefix string

	mu   sync.Mutex
	won  *place // nil unless this Election leads
	busy bool   // a Campaign is under way
}

// NewElection returns an Election that does not lead; nothing is asked of the cluster. Different
// prefixes are independent, also if one continues the other, as "a/b" continues "a": the keys of the
// election are prefix + "/" + the lease of a session in hex + "-" + 8 hex digits. Campaign refuses an
// empty prefix.
func NewElection(s *Session, prefix string) *Election { return &Election{s: s, prefix: prefix} }

// Campaign waits until this Election leads, with val for all to see. When it leads already, it
// proclaims val. When it fails, no candidacy is left behind.
//
// Errors: ctx's cause, in a *HeldError if another leads as far as this node knows, and with ErrNoLeader when
// no leader of the cluster was known; ErrSessionExpired when the session ended, ErrNotOwner when somebody removed
// the candidacy: it never returns nil without leading; ErrLocked when another Campaign of this
// Election is under way; ErrInvalidOption for an empty prefix; ErrClosed.
func (e *Election) Campaign(ctx context.Context, val string) error {
	e.mu.Lock()
	won, busy := e.won, e.busy
	e.busy = true
	e.mu.Unlock()
	if busy {
		return ErrLocked
	}
	err := ErrNotOwner
	if won != nil {
		err = e.Proclaim(ctx, val)
	}
	if errors.Is(err, ErrNotOwner) {
		won, err = e.campaign(ctx, val)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy = false
	if err == nil {
		e.won = won
	}
	return err
}

func (e *Election) campaign(ctx context.Context, val string) (*place, error) {
	p, err := newPlace(e.s, e.prefix)
	if err != nil {
		return nil, err
	}
	if err := p.enter(ctx, val, p.wait); err != nil {
		return nil, err
	}
	return p, nil
}

// place returns what the Election leads by: nil if it does not.
func (e *Election) place() *place {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.won
}

// Proclaim changes the leader's value.
//
// Errors: ErrNotOwner when this Election does not lead, or no longer; those of a write.
func (e *Election) Proclaim(ctx context.Context, val string) error {
	p := e.place()
	if p == nil {
		return ErrNotOwner
	}
	if err := e.s.Err(); err != nil {
		return err
	}
	r, err := e.s.Node().Txn(ctx).If(p.guard()).Then(OpPut(p.key, val, WithLease(e.s.Lease()))).Commit()
	if err != nil {
		return err
	}
	if !r.Succeeded {
		e.lost(p)
		return ErrNotOwner
	}
	return nil
}

// Resign gives leadership up; the next candidate leads then. After an error other than ErrNotOwner
// it may be called again.
//
// Errors: ErrNotOwner when this Election does not lead, or no longer: the leadership of another is
// never touched. Those of a write.
func (e *Election) Resign(ctx context.Context) error {
	p := e.place()
	if p == nil {
		return ErrNotOwner
	}
	err := p.leave(ctx)
	if err == nil || errors.Is(err, ErrNotOwner) {
		e.lost(p)
	}
	return err
}

func (e *Election) lost(p *place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.won == p {
		e.won = nil
	}
}

// Token returns the fencing token: a number higher than that of every earlier leader; 0 when this
// Election does not lead.
func (e *Election) Token() int64 {
	if p := e.place(); p != nil {
		return p.rev
	}
	return 0
}

// Guard returns a condition that holds as long as this Election leads, as [Mutex.Guard] does.
func (e *Election) Guard() Comparison {
	p := e.place()
	if p == nil {
		p = &place{key: e.prefix + "/"}
	}
	return p.guard()
}

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

// A LeaderOption fits [RunAsLeader]. Every [SessionOption] is one.
type LeaderOption interface{ leads(*leaderOptions) }

type leaderOptions struct {
	session []SessionOption
	onError func(error)
}

func (o SessionOption) leads(l *leaderOptions) { l.session = append(l.session, o) }

type onErrorOption func(error)

func (o onErrorOption) leads(l *leaderOptions) { l.onError = o }

// WithOnError makes RunAsLeader call fn with every error that its body returned as the leader, before
// it campaigns again. By then it has resigned. It calls fn on its own goroutine: while fn runs, this
// instance is no candidate, and nothing else waits.
func WithOnError(fn func(err error)) LeaderOption { return onErrorOption(fn) }

// The first pause between two campaigns, and the longest.
const (
	retryPause    = 100 * time.Millisecond
	maxRetryPause = 30 * time.Second
)

// RunAsLeader campaigns under prefix, with val for all to see, and runs fn as the leader, with a
// context that ends before anyone else can lead, and the fencing token of this leadership. It
// campaigns again until ctx ends, the node closes, or fn ends the campaign:
//
//   - If fn returns nil as the leader, RunAsLeader returns nil.
//   - If fn returns an error that matches [ErrStopCampaign], RunAsLeader returns that error.
//   - If fn returns another error as the leader, RunAsLeader resigns, so that another candidate can
//     lead, logs the error, calls the function of [WithOnError], and campaigns again after a pause: 0.1 s
//     after the first error, twice as long after each further one, up to 30 s. A body that led for
//     30 s begins anew with 0.1 s.
//   - If leadership is lost, RunAsLeader waits until fn has returned, drops its error, and campaigns
//     again.
//   - If fn panics, RunAsLeader resigns, and the panic goes on to its caller.
//
// RunAsLeader has a session of its own, and has resigned when it returns. It calls fn on the caller's
// goroutine.
//
// A body that returns when its context ends never overlaps with another's. One that may be stopped
// for long, as processes are, must guard what it writes: with the token, or in this store with
// [GuardFromContext]. To stop an instance, end ctx and wait for RunAsLeader before the node is closed: a node
// that is closed revokes nothing, and the next leader has to wait for the lease.
//
// Errors: ctx's cause; ErrClosed; ErrStopCampaign, as fn returned it; ErrTTLRange and ErrInvalidOption;
// ErrTooLarge if val is.
func RunAsLeader(ctx context.Context, n *Node, prefix, val string,
	fn func(ctx context.Context, token int64) error, opts ...LeaderOption,
) error {
	var o leaderOptions
	for _, opt := range opts {
		opt.leads(&o)
	}
	backoff := retryPause
	for {
		term, err := runOnce(ctx, n, prefix, val, fn, o.session)
		pause := retryPause
		switch {
		case term.outcome == finished:
			return err
		case term.outcome == failed && n.Status().Role != RoleClosed:
			if term.led >= maxRetryPause {
				backoff = retryPause
			}
			pause, backoff = backoff, min(2*backoff, maxRetryPause)
			n.Logger().Warn("the leader's body failed, it campaigns again", "prefix", prefix, "err", err, "pause", pause)
			if o.onError != nil {
				o.onError(err)
			}
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case term.outcome == notLed && hopeless(err):
			return err
		}
		// A lease that was given is gone by now.
		o.session = append(o.session[:len(o.session):len(o.session)], WithExistingLease(0))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		case <-n.Done():
		}
	}
}

// hopeless reports whether every further campaign would fail with this error too.
func hopeless(err error) bool {
	return errors.Is(err, ErrClosed) || errors.Is(err, ErrTTLRange) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalidOption)
}

// A term is what came of one campaign.
type term struct {
	outcome outcome
	led     time.Duration
}

type outcome int

const (
	notLed   outcome = iota // the campaign failed
	lost                    // leadership was lost before fn returned
	failed                  // fn returned an error as the leader
	finished                // fn wants no further campaign
)

// runOnce campaigns and runs fn once. The error is that of the campaign if it failed, and fn's if fn
// returned as the leader or wants no further campaign.
func runOnce(ctx context.Context, n *Node, prefix, val string,
	fn func(context.Context, int64) error, opts []SessionOption,
) (t term, err error) {
	s, err := NewSession(ctx, n, opts...)
	if err != nil {
		return t, err
	}
	defer settle(ctx, func() { s.Close() })
	e := NewElection(s, prefix)
	if err := e.Campaign(ctx, val); err != nil {
		return t, err
	}
	p := e.place()
	bound, unbind := s.WorkContext(withGuard(ctx, p.guard()))
	defer unbind()
	inner, cancel := context.WithCancelCause(bound)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(p.lost(inner)) })
	begin := time.Now()
	err = fn(inner, p.rev)
	t.led = time.Since(begin)
	leads := inner.Err() == nil && s.Err() == nil
	stop := errors.Is(err, ErrStopCampaign)
	if leads && err != nil && !stop {
		// A write that its guard refused may have told fn sooner than the watch tells here.
		leads = p.held(inner)
	}
	cancel(nil)
	watching.Wait()
	switch {
	case stop, leads && err == nil:
		t.outcome = finished
	case leads:
		t.outcome = failed
	default:
		t.outcome, err = lost, nil // fn's error came of the loss
	}
	return t, err
}
