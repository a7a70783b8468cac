// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"
)

// An Election elects one leader among all candidates that campaign under its prefix, on any node, in the
// order in which they called Campaign. Its methods may be called concurrently. For the usual case, in which
// a service does something as long as it leads, see [RunAsLeader].
//
// An Election differs from the one of clientv3/concurrency: Campaign never returns nil without leadership,
// Proclaim, Resign and Guard check that the leadership still is this one, and Observe reports that there is
// no leader.
type Election struct {
	s      *Session
	prefix string

	mu   sync.Mutex // guards won and busy
	won  *place     // nil unless this Election leads
	busy bool       // a Campaign is in progress
}

// NewElection returns an Election that does not lead. It does not contact the cluster. Elections of
// different prefixes are independent, even if one prefix continues the other, as "a/b" continues "a". The
// keys of an election are prefix + "/" + the lease of a session in hex + "-" + 8 hex digits. Campaign rejects
// an empty prefix.
func NewElection(s *Session, prefix string) *Election { return &Election{s: s, prefix: prefix} }

// ResumeElection returns an Election that leads already if the session's lease does: for a process that
// restarts while its lease lives, and then leads on without an election.
//
//	s, err := coterie.NewSession(ctx, n, coterie.WithExistingLease(lease)) // as stored before the restart
//	e, err := coterie.ResumeElection(ctx, s, prefix)
//	err = e.Campaign(ctx, val) // returns at once if e leads
//
// If the lease does not lead, ResumeElection returns an Election without a Key, as NewElection does. It
// deletes candidacies of the lease that do not lead, because their process no longer waits for them: so call
// it before another Election of the same lease and prefix campaigns. A resumed leadership is the same one,
// with the same Token: neither Token nor Guard stop the process before the restart, which must have
// ended. It costs two reads.
//
// Unlike concurrency.ResumeElection, it needs neither the key nor the revision of the leadership, and asks
// the cluster whether the leadership still exists.
//
// Errors: ErrSessionExpired if the session has ended; ErrInvalidOption for an empty prefix; those of
// [Node.Get] and [Txn.Commit].
func ResumeElection(ctx context.Context, s *Session, prefix string) (*Election, error) {
	e := NewElection(s, prefix)
	own, err := ownPlaces(ctx, s, prefix)
	if err != nil {
		return nil, err
	}
	for _, p := range own {
		before, _, err := p.before(ctx)
		if err == nil && before != "" {
			err = p.leave(ctx)
		} else if err == nil {
			e.won = p
		}
		if err != nil && !errors.Is(err, ErrNotOwner) {
			return nil, err
		}
	}
	return e, s.Err()
}

// Campaign waits until this Election leads, and publishes val as the leader's value. If it leads already,
// it publishes val. If Campaign fails, it leaves no candidacy behind.
//
// Errors: ctx's cause, in a *HeldError if this node knows of another leader, and with ErrNoLeader if no
// leader of the cluster was known; ErrSessionExpired if the session has ended; ErrNotOwner if the
// candidacy was removed by deleting its key; ErrLocked if another Campaign of this Election is in progress;
// ErrInvalidOption for an empty prefix; ErrClosed; those of [Txn.Commit].
func (e *Election) Campaign(ctx context.Context, val string) error {
	e.mu.Lock()
	won, busy := e.won, e.busy
	e.busy = true
	e.mu.Unlock()
	if busy {
		return fmt.Errorf("%w: another Campaign of this Election of %q is in progress", ErrLocked, e.prefix)
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

// place returns the place by which the Election leads, or nil if it does not lead.
func (e *Election) place() *place {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.won
}

// notLeading returns the error of a call that needs leadership.
func (e *Election) notLeading() error {
	return fmt.Errorf("%w: this Election of %q does not lead", ErrNotOwner, e.prefix)
}

// Proclaim changes the leader's value.
//
// Errors: ErrNotOwner if this Election does not lead, or no longer; ErrSessionExpired; those of
// [Txn.Commit].
func (e *Election) Proclaim(ctx context.Context, val string) error {
	p := e.place()
	if p == nil {
		return e.notLeading()
	}
	if err := e.s.Err(); err != nil {
		return err
	}
	err := p.write(ctx, OpPut(p.key, val, WithLease(e.s.Lease())))
	if errors.Is(err, ErrNotOwner) {
		e.lost(p)
	}
	return err
}

// Resign gives up leadership, so that the next candidate leads. After an error other than ErrNotOwner it may
// be called again.
//
// Errors: ErrNotOwner if this Election does not lead, or no longer: Resign never ends the leadership of
// another candidate. Those of [Txn.Commit].
func (e *Election) Resign(ctx context.Context) error {
	p := e.place()
	if p == nil {
		return e.notLeading()
	}
	err := p.leave(ctx)
	if err == nil || errors.Is(err, ErrNotOwner) {
		e.lost(p)
	}
	return err
}

// lost records that the leadership by a place has ended, unless the Election leads by another one meanwhile.
func (e *Election) lost(p *place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.won == p {
		e.won = nil
	}
}

// Key returns the key by which this Election leads, and "" if it does not lead. Deleting the key ends the
// leadership.
func (e *Election) Key() string {
	if p := e.place(); p != nil {
		return p.key
	}
	return ""
}

// Token returns the fencing token: the create revision of the leader's key, which is higher than that of
// every earlier leader. It is 0 if this Election does not lead. It is Rev of clientv3/concurrency.
func (e *Election) Token() int64 {
	if p := e.place(); p != nil {
		return p.rev
	}
	return 0
}

// Guard returns a condition for transactions that holds as long as this Election leads, as [Mutex.Guard]
// does.
func (e *Election) Guard() Comparison {
	p := e.place()
	if p == nil {
		p = &place{key: e.prefix + "/"}
	}
	return p.guard()
}

// WorkContext returns a context for the work of the leader, as [Mutex.WorkContext] does for a lock.
func (e *Election) WorkContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return workContext(ctx, e.place())
}

// An ElectionLeader is the leader of an election, or says that there is none. The leader of the cluster is
// a [ClusterLeader].
type ElectionLeader struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Token   int64  `json:"token"`   // the fencing token of this leadership
	Elected bool   `json:"elected"` // false if no candidate leads; then the other fields are empty
}

// ObserveElection yields the leader among the candidates that campaign under prefix, with an [Election] or
// [RunAsLeader]: now, and again whenever the leader or its value changes. It also yields that there is no
// leader. A slow loop sees the latest state and may miss those in between. ObserveElection needs no
// session. The sequence may be used once. It ends with ctx or the node, with a pair that has the error.
//
// Errors: ctx's cause; ErrClosed; ErrInvalidOption for an empty prefix.
func ObserveElection(ctx context.Context, n *Node, prefix string) iter.Seq2[ElectionLeader, error] {
	return func(yield func(ElectionLeader, error) bool) {
		err := observe(ctx, n, prefix, func(leader ElectionLeader) bool { return yield(leader, nil) })
		if err != nil {
			yield(ElectionLeader{}, err)
		}
	}
}

// Observe is [ObserveElection] for this election. It continues after the session has ended.
func (e *Election) Observe(ctx context.Context) iter.Seq2[ElectionLeader, error] {
	return ObserveElection(ctx, e.s.Node(), e.prefix)
}

// Leader returns the leader of this election. It is linearizable. If there is no leader, it returns no
// error but an ElectionLeader that is not Elected.
func (e *Election) Leader(ctx context.Context) (ElectionLeader, error) {
	leader, _, err := leaderOf(ctx, e.s.Node(), e.prefix)
	return leader, err
}

// leaderOf returns the leader of an election, and the revision at which it read it.
func leaderOf(ctx context.Context, n *Node, prefix string, opts ...GetOption) (ElectionLeader, int64, error) {
	kv, found, rev, err := head(ctx, n, prefix, opts...)
	if err != nil || !found {
		return ElectionLeader{}, rev, err
	}
	return ElectionLeader{Key: kv.Key, Value: kv.Value, Token: kv.CreateRevision, Elected: true}, rev, nil
}

// observe calls yield for the leader now and after each change. It returns nil when yield returned false.
func observe(ctx context.Context, n *Node, prefix string, yield func(ElectionLeader) bool) error {
	var last ElectionLeader
	rev := int64(0) // at which last was read
	look := func(opts ...GetOption) (more bool, err error) {
		leader, seen, err := leaderOf(ctx, n, prefix, opts...)
		if err != nil {
			return false, err
		}
		changed := rev == 0 || leader != last
		last, rev = leader, seen
		return !changed || yield(leader), nil
	}
	for {
		if more, err := look(); !more {
			return err
		}
		for r, err := range n.Watch(ctx, prefix+"/", WithPrefix(), WithRevision(rev+1)) {
			if errors.Is(err, ErrCompacted) {
				break // the loop was slow: only the present leader matters, so read again
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

// A LeaderOption is an option of [RunAsLeader]. Every [SessionOption] is one.
type LeaderOption interface{ leads(*leaderOptions) }

type leaderOptions struct {
	session []SessionOption
	onError func(error)
}

func (o SessionOption) leads(l *leaderOptions) { l.session = append(l.session, o) }

type onErrorOption func(error)

func (o onErrorOption) leads(l *leaderOptions) { l.onError = o }

// WithOnError makes RunAsLeader call fn with every error that its body returned while it led, before it
// campaigns again. By then it has resigned. It calls fn on its own goroutine: this instance is no candidate
// until fn returns, but nothing else waits.
func WithOnError(fn func(err error)) LeaderOption { return onErrorOption(fn) }

// RunAsLeader campaigns under prefix, publishes val as the leader's value, and runs fn while it leads. fn
// gets the fencing token of this leadership, and a context that ends before another candidate can lead.
// RunAsLeader campaigns again until ctx ends, the node closes, or fn ends the campaign:
//
//   - If fn returns nil while leading, RunAsLeader returns nil.
//   - If fn returns an error that matches [ErrStopCampaign], RunAsLeader returns that error.
//   - If fn returns another error while leading, RunAsLeader resigns, so that another candidate can lead,
//     logs the error, calls the function of [WithOnError], and campaigns again after a pause: 0.1 s after
//     the first error, twice as long after each further one, up to 30 s. After a leadership of at least
//     30 s the pause is 0.1 s again.
//   - If leadership is lost, RunAsLeader waits until fn has returned, drops its error, and campaigns again.
//   - If fn panics, RunAsLeader resigns, and the panic continues in the caller.
//
// RunAsLeader has a session of its own, and has resigned when it returns. It calls fn on the caller's
// goroutine. It does not resume a leadership that a lease of [WithExistingLease] has: it would wait for
// itself. For that, see [ResumeElection].
//
// Two bodies that return when their contexts end never overlap. A body in a process that may be suspended
// for long must protect its writes: in this store with [GuardFromContext], elsewhere with the token. To stop
// an instance, end ctx and wait for RunAsLeader before you close the node: a closed node revokes nothing, and
// the next leader has to wait until the lease expires.
//
// Errors: ctx's cause; ErrClosed; ErrStopCampaign, as fn returned it; ErrTTLRange and ErrInvalidOption;
// ErrTooLarge if val is too large.
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
			n.Logger().Warn("leader function failed, campaigning again", "prefix", prefix, "err", err, "pause", pause)
			if o.onError != nil {
				o.onError(err)
			}
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case term.outcome == notLed && hopeless(err):
			return err
		}
		o.session = withNewLease(o.session)
		sleep(ctx, n, pause)
	}
}

// withNewLease returns options for the next session: the lease that an option named is revoked by now.
func withNewLease(opts []SessionOption) []SessionOption {
	return append(opts[:len(opts):len(opts)], WithExistingLease(0))
}

// A term is the result of one campaign.
type term struct {
	outcome outcome
	led     time.Duration
}

type outcome int

const (
	notLed   outcome = iota // the campaign failed
	lost                    // leadership was lost before fn returned
	failed                  // fn returned an error while leading
	finished                // fn ended the campaign
)

// runOnce campaigns and runs fn once. The error is the campaign's if the campaign failed, and fn's if fn
// returned while leading or ended the campaign.
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
	begin := time.Now()
	ended, err := e.place().run(ctx, fn)
	t.led = time.Since(begin)
	switch {
	case errors.Is(err, ErrStopCampaign), ended == nil && err == nil:
		t.outcome = finished
	case ended == nil:
		t.outcome = failed
	default:
		t.outcome, err = lost, nil // the loss caused fn's error
	}
	return t, err
}
