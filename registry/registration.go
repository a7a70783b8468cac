// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coterie-kv/coterie"
)

// A Registration keeps an instance registered. Its methods may be called concurrently.
type Registration struct {
	n        *coterie.Node
	key      string
	self     Instance // as it was first registered
	opts     options
	ctx      context.Context
	end      context.CancelCauseFunc
	held     chan struct{} // closed when it was registered for the first time
	done     chan struct{}
	changed  chan struct{} // has a value when the key is to be written again
	replaced bool          // it has come in, and replaces nobody any more
	stored   string        // what the store took last

	mu      sync.Mutex
	value   string // what the key is to have
	err     error
	failure error // the last, other than the end of ctx
}

// A RegisterOption is an option of [Register].
type RegisterOption func(*options)

type options struct {
	ttl      time.Duration
	takeover bool
}

// WithTTL sets how long an instance is listed after its process has ended without saying so, or was
// cut off. Defaults to 15 s; see coterie.WithTTL.
func WithTTL(ttl time.Duration) RegisterOption { return func(o *options) { o.ttl = ttl } }

const defaultTTL = 15 * time.Second

// WithTakeover has Register replace whoever has the ID. Who was replaced does not fight back: it
// waits until the ID is free again.
func WithTakeover() RegisterOption { return func(o *options) { o.takeover = true } }

// Register registers an instance under service, a prefix of keys as "services/orders", and keeps it
// registered until ctx ends, Close or the node's: whatever happens to its lease or to its key, it
// is registered again, within a second of the quorum's return. Register returns when the instance
// is registered for the first time; without a quorum it blocks until ctx ends. One that has the ID
// already is replaced if it has the same address, for then it is what this instance was before it
// crashed. Of two that lost an ID to each other later, one waits, and Err says so.
//
// It costs two writes, a lease and a key, at the beginning and after each outage that the lease did
// not survive, and one at the end; renewals are no writes. A goroutine serves it, with one of the
// session and one of the watch of its own key. When the process crashes, or is cut off, the
// instance is listed for a TTL more; a node that is closed before the Registration is as one that
// crashed.
//
// Errors: ErrInvalidOption for a service without a name, or an instance without ID or address; an *IDTakenError; ErrTTLRange,
// ErrTooLarge; ctx's cause, with the last failure before, or with ErrNoLeader when no leader was known; ErrClosed. Nothing is left registered then, but what the lease takes
// with it.
func Register(ctx context.Context, n *coterie.Node, service string, instance Instance, opts ...RegisterOption) (*Registration, error) {
	if err := n.Err(); err != nil { // before a goroutine meets a node that is nil
		return nil, err
	}
	value, err := instance.encode()
	if err != nil {
		return nil, err
	}
	if service == "" {
		return nil, errNoName
	}
	r := &Registration{
		n: n, key: service + "/" + instance.ID, self: instance, value: value,
		held: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}, 1),
	}
	for _, opt := range opts {
		opt(&r.opts)
	}
	if r.opts.ttl == 0 {
		r.opts.ttl = defaultTTL
	}
	r.ctx, r.end = context.WithCancelCause(ctx)
	go r.run()
	select {
	case <-r.held:
		return r, nil
	case <-r.done:
		return nil, r.Err()
	case <-ctx.Done(): // what has to be given up, run gives up
		err := fmt.Errorf("%w: %s is not registered", n.ContextError(ctx), r.key)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.failure != nil {
			err = fmt.Errorf("%w: %w", err, r.failure)
		}
		return nil, err
	}
}

// retryPause is how long it waits after a failure before it tries again.
const retryPause = 100 * time.Millisecond

// run keeps the instance registered until ctx ends, or until there is no sense in it.
func (r *Registration) run() {
	defer close(r.done)
	defer r.end(nil)
	var lease coterie.LeaseID
	for {
		var err error
		lease, err = r.hold(lease)
		if r.ctx.Err() != nil {
			err = context.Cause(r.ctx)
		}
		r.tell(err)
		if r.ctx.Err() != nil || errors.Is(err, coterie.ErrClosed) || !r.replaced && permanent(err) {
			r.revoke(lease)
			return
		}
		if errors.Is(err, coterie.ErrLeaseNotFound) {
			lease = 0 // it went, and the key with it
			continue
		}
		select {
		case <-time.After(retryPause):
		case <-r.ctx.Done():
		case <-r.n.Done():
		}
	}
}

// revoke ends a lease that no session has at the moment, for a new leader may let it live on. It
// tries for as long as it would live without.
func (r *Registration) revoke(lease coterie.LeaseID) {
	if lease == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.opts.ttl)
	defer cancel()
	if s, err := coterie.NewSession(ctx, r.n, coterie.WithExistingLease(lease)); err == nil {
		_ = s.Close()
	}
}

// permanent reports whether an error comes again however often it is tried.
func permanent(err error) bool {
	for _, e := range []error{ErrIDTaken, coterie.ErrTTLRange, coterie.ErrTooLarge, coterie.ErrInvalidOption} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// hold keeps the instance registered for as long as one session lives: one that continues a lease,
// or a new one if that is 0. It returns the lease if that may live on, and why the session has
// ended.
func (r *Registration) hold(lease coterie.LeaseID) (coterie.LeaseID, error) {
	s, err := coterie.NewSession(r.ctx, r.n, coterie.WithExistingLease(lease), coterie.WithTTL(r.opts.ttl))
	if err != nil {
		return lease, err
	}
	ctx, cancel := s.WorkContext(r.ctx)
	err = r.keep(ctx, s.Lease())
	cancel()
	if r.ctx.Err() != nil || !r.replaced {
		_ = s.Close() // deregisters at once; what cannot be revoked ends by itself
		return 0, err
	}
	s.Orphan()
	return s.Lease(), err
}

// keep has the key be the instance's, under a lease, until there is an error, which it returns.
func (r *Registration) keep(ctx context.Context, lease coterie.LeaseID) error {
	for {
		rev, err := r.claim(ctx, lease)
		if err != nil && (!r.replaced || !permanent(err)) {
			return err
		}
		r.tell(err)
		var opts []coterie.WatchOption
		if err == nil {
			r.came()
		}
		if errors.Is(err, ErrIDTaken) {
			opts = append(opts, coterie.WithFilterPut()) // whatever the other does, it has to go
		}
		if rev > 0 {
			opts = append(opts, coterie.WithRevision(rev+1))
		}
		if err := r.wait(ctx, opts); err != nil {
			return err
		}
	}
}

// came notes that the instance is registered.
func (r *Registration) came() {
	if !r.replaced {
		r.replaced = true
		close(r.held)
	}
}

// wait returns when somebody has changed the key, or Update has.
func (r *Registration) wait(ctx context.Context, opts []coterie.WatchOption) error {
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-r.n.WatchChan(watched, r.key, opts...): // also if it was compacted: then it is time to look
	case <-r.changed:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// claim has the key be what it is to be, or, if that is too large, what it was before. It returns
// the revision at which the key was as it tells.
func (r *Registration) claim(ctx context.Context, lease coterie.LeaseID) (int64, error) {
	r.mu.Lock()
	value := r.value
	r.mu.Unlock()
	rev, err := r.write(ctx, lease, value)
	switch {
	case err == nil:
		r.stored = value
	case errors.Is(err, coterie.ErrTooLarge) && r.stored != "":
		var failed error
		if rev, failed = r.write(ctx, lease, r.stored); failed != nil {
			err = failed
		}
	}
	return rev, err
}

// write writes the key, if nobody has it, or this lease has: what is done twice does no harm,
// whatever became of the first.
func (r *Registration) write(ctx context.Context, lease coterie.LeaseID, value string) (int64, error) {
	put := coterie.OpPut(r.key, value, coterie.WithLease(lease))
	replaces := int64(0) // the revision of what it may replace: that of no key
	for {
		free := []coterie.Comparison{coterie.Compare(coterie.ModRevision(r.key), "=", replaces)}
		t, err := r.n.Txn(ctx).If(coterie.Compare(coterie.LeaseValue(r.key), "=", lease)).Then(put).
			Else(coterie.OpTxn(free, []coterie.Op{put}, []coterie.Op{coterie.OpGet(r.key)})).Commit()
		if err != nil {
			return 0, err
		}
		if t.Succeeded || t.Responses[0].Txn.Succeeded {
			return t.Revision, nil
		}
		found := t.Responses[0].Txn.Responses[0].Get.KVs
		if len(found) == 0 {
			replaces = 0 // who was to be replaced has gone meanwhile
			continue
		}
		other := found[0]
		holder, _ := decode(other)
		if r.replaced || !r.opts.takeover && holder.Addr != r.self.Addr {
			return t.Revision, &IDTakenError{holder, other.Lease}
		}
		replaces = other.ModRevision
	}
}

// tell makes Err return an error.
func (r *Registration) tell(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; r.ctx.Err() == nil {
		r.failure = err
	}
}

// Update changes what the others see of the instance: its load, weight, metadata, or address, but
// not its ID. It does not block: what was given last is written in the background, as soon as that
// is possible, at one write for all that came meanwhile. Err tells if it cannot be, and what the
// others saw before stays until another Update.
//
// Errors: ErrInvalidOption; ErrClosed when the Registration has ended.
func (r *Registration) Update(instance Instance) error {
	value, err := instance.encode()
	switch {
	case err != nil:
		return err
	case instance.ID != r.self.ID:
		return fmt.Errorf("%w: an instance keeps its ID", coterie.ErrInvalidOption)
	case r.ctx.Err() != nil:
		return coterie.ErrClosed
	}
	r.mu.Lock()
	r.value = value
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default: // it will be written anyway
	}
	return nil
}

// Err returns why the instance is not registered as it should be: an *IDTakenError while another has
// the ID, ErrTooLarge after an Update that was, ErrSessionExpired or others while it is trying;
// ctx's cause or ErrClosed when it has ended; nil when all is well, as far as this node knows.
func (r *Registration) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Done is closed when the Registration has ended, and the instance is no longer registered or goes
// with its lease.
func (r *Registration) Done() <-chan struct{} { return r.done }

// Close deregisters the instance at once, and returns when that is done: without a quorum when the
// lease must have ended. It is idempotent. The end of ctx does the same in the background.
func (r *Registration) Close() {
	r.end(coterie.ErrClosed)
	<-r.done
}
