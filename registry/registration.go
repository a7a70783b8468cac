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

// A Registration keeps an instance registered. Its methods are safe for concurrent use.
type Registration struct {
	// The goroutine of run owns registered and stored. mu guards the fields below it. The other fields do not
	// change.

	n       *coterie.Node
	key     string
	self    Instance // as it was first registered
	opts    options
	ctx     context.Context // ends with Close, or when Register gives up
	end     context.CancelCauseFunc
	held    chan struct{} // closed when the instance is registered for the first time
	done    chan struct{} // closed when run has ended
	changed chan struct{} // has an element if run must write the key again

	registered bool   // held is closed; from now on run replaces no other holder
	stored     string // the last value that the store accepted

	mu      sync.Mutex
	value   string // the value that the key should have
	err     error
	failure error // the last failure before ctx ended
}

// A RegisterOption is an option of [Register].
type RegisterOption func(*options)

type options struct {
	ttl      time.Duration
	takeover bool
}

// WithTTL sets for how long an instance is listed after its process has crashed or was cut off. The
// default is 15 seconds; see [coterie.WithTTL] for the range.
func WithTTL(ttl time.Duration) RegisterOption { return func(o *options) { o.ttl = ttl } }

const defaultTTL = 15 * time.Second

// WithTakeover makes Register replace an instance that has the same ID and another address. The
// Registration of the replaced instance does not take the ID back: it waits until the ID is free
// again.
func WithTakeover() RegisterOption { return func(o *options) { o.takeover = true } }

// Register registers an instance of a service and returns when the instance is registered. The service is
// a prefix of keys, such as "services/orders". Without a quorum Register blocks until ctx ends.
//
// The Registration keeps the instance registered until [Registration.Close], or until the node closes. If
// the lease expires or the key is deleted, it registers the instance again, within a second after the
// quorum has returned. It does not end with ctx.
//
// If the ID is taken by an instance with the same address, Register replaces it, because that is this
// instance before a crash. If two Registrations later lose one ID to each other, one of them waits, and its
// Err says so.
//
// Register writes a lease and a key. They are written again after an outage that the lease did not survive.
// Close is one more write; renewals are not writes. A Registration takes a goroutine, a
// [coterie.Session], and a watch of its own key. If the process crashes or is cut off, the instance stays
// listed for the TTL. The same happens if the node is closed before the Registration.
//
// Errors: coterie.ErrInvalidOption for a service without a name, or an instance without an ID or an address; an
// *IDTakenError; coterie.ErrTTLRange; coterie.ErrTooLarge; ctx's cause, together with the last failure, or with
// coterie.ErrNoLeader if no leader was known; coterie.ErrClosed. After an error the instance does not
// stay registered: its lease is revoked, or expires.
func Register(ctx context.Context, n *coterie.Node, service string, instance Instance, opts ...RegisterOption) (*Registration, error) {
	if err := n.Err(); err != nil { // before the goroutine would use a nil node
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
	if ctx.Err() != nil {
		return nil, r.gaveUp(ctx)
	}
	r.ctx, r.end = context.WithCancelCause(context.WithoutCancel(ctx))
	go r.run()
	select {
	case <-r.held:
		return r, nil
	case <-r.done:
		return nil, r.Err()
	case <-ctx.Done():
		r.end(context.Cause(ctx)) // run removes what it has written
		return nil, r.gaveUp(ctx)
	}
}

// gaveUp returns the error of Register after the end of ctx.
func (r *Registration) gaveUp(ctx context.Context) error {
	err := fmt.Errorf("%w: %s is not registered", r.n.ContextError(ctx), r.key)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failure != nil {
		err = fmt.Errorf("%w: %w", err, r.failure)
	}
	return err
}

// retryPause is the pause between a failure and the next attempt.
const retryPause = 100 * time.Millisecond

// run keeps the instance registered until ctx ends, the node closes, or the first registration fails for
// good.
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
		r.setErr(err)
		if r.ctx.Err() != nil || errors.Is(err, coterie.ErrClosed) || !r.registered && permanent(err) {
			r.revoke(lease)
			return
		}
		if errors.Is(err, coterie.ErrLeaseNotFound) {
			lease = 0 // it has expired or was revoked, and the key was deleted with it
			continue
		}
		select {
		case <-time.After(retryPause):
		case <-r.ctx.Done():
		case <-r.n.Done():
		}
	}
}

// revoke revokes a lease that no session renews at the moment. A new leader may give such a lease another
// TTL, so revoke tries for one TTL.
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

// permanent reports whether an error would be the same at each attempt.
func permanent(err error) bool {
	for _, e := range []error{ErrIDTaken, coterie.ErrTTLRange, coterie.ErrTooLarge, coterie.ErrInvalidOption} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// hold keeps the instance registered during one session. The session continues a lease, or begins a new
// one if lease is 0. hold returns why the session has ended, and its lease if that may still live.
func (r *Registration) hold(lease coterie.LeaseID) (coterie.LeaseID, error) {
	s, err := coterie.NewSession(r.ctx, r.n, coterie.WithExistingLease(lease), coterie.WithTTL(r.opts.ttl))
	if err != nil {
		return lease, err
	}
	ctx, cancel := s.WorkContext(r.ctx)
	err = r.keep(ctx, s.Lease())
	cancel()
	if r.ctx.Err() != nil || !r.registered {
		_ = s.Close() // deregisters at once; a lease that cannot be revoked expires
		return 0, err
	}
	s.Orphan()
	return s.Lease(), err
}

// keep writes the instance to its key under a lease, again after each change, until an error ends it.
func (r *Registration) keep(ctx context.Context, lease coterie.LeaseID) error {
	for {
		rev, err := r.claim(ctx, lease)
		if err != nil && (!r.registered || !permanent(err)) {
			return err
		}
		r.setErr(err)
		var opts []coterie.WatchOption
		if err == nil {
			r.noteRegistered()
		}
		if errors.Is(err, ErrIDTaken) {
			opts = append(opts, coterie.WithFilterPut()) // only a delete can free the ID
		}
		if rev > 0 {
			opts = append(opts, coterie.WithRevision(rev+1))
		}
		if err := r.wait(ctx, opts); err != nil {
			return err
		}
	}
}

// noteRegistered lets Register return.
func (r *Registration) noteRegistered() {
	if !r.registered {
		r.registered = true
		close(r.held)
	}
}

// wait returns when the key has changed, or when Update has set another value.
func (r *Registration) wait(ctx context.Context, opts []coterie.WatchOption) error {
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-r.n.WatchChan(watched, r.key, opts...): // an error, such as ErrCompacted, is also a reason to look again
	case <-r.changed:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// claim writes the value to the key. If the value is too large, it writes the last value that the store
// accepted. It returns the revision at which the key had the reported state.
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

// write writes the key if it is free, has this lease, or may be replaced. It is idempotent, so it is safe
// after an attempt with an unknown outcome.
func (r *Registration) write(ctx context.Context, lease coterie.LeaseID, value string) (int64, error) {
	put := coterie.OpPut(r.key, value, coterie.WithLease(lease))
	replaces := int64(0) // the ModRevision of the value to replace; 0: only a free key
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
			replaces = 0 // the other holder has left meanwhile
			continue
		}
		other := found[0]
		holder, _ := decode(other)
		if r.registered || !r.opts.takeover && holder.Addr != r.self.Addr {
			return t.Revision, &IDTakenError{holder, other.Lease}
		}
		replaces = other.ModRevision
	}
}

// setErr sets the error that Err returns.
func (r *Registration) setErr(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; r.ctx.Err() == nil {
		r.failure = err
	}
}

// Update changes the registered instance: its load, weight, metadata or address, but not its ID. It does
// not block. The Registration writes the newest value in the background as soon as it can; updates that
// come meanwhile share one write. If the value cannot be written, Err says so, and the previous value stays
// until the next Update.
//
// Errors: coterie.ErrInvalidOption; coterie.ErrClosed after Close.
func (r *Registration) Update(instance Instance) error {
	value, err := instance.encode()
	switch {
	case err != nil:
		return err
	case instance.ID != r.self.ID:
		return fmt.Errorf("%w: an update must keep the ID of the instance", coterie.ErrInvalidOption)
	case r.ctx.Err() != nil:
		return errRegistrationClosed
	}
	r.mu.Lock()
	r.value = value
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default: // run has not seen the last change yet
	}
	return nil
}

// Err returns why the instance is not registered with its newest value, as far as this node knows, and nil
// if it is. It returns an *IDTakenError while another instance has the ID, coterie.ErrTooLarge after an Update
// with a value that was too large, and coterie.ErrSessionExpired or another error while the Registration tries to
// register again. After Close, or when the node has closed, it returns coterie.ErrClosed.
func (r *Registration) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Done returns a channel that is closed when the Registration has ended. The instance is then no longer
// registered, or will be removed when its lease expires.
func (r *Registration) Done() <-chan struct{} { return r.done }

// errRegistrationClosed is the error of a Registration that has ended.
var errRegistrationClosed = fmt.Errorf("registry: the registration is closed: %w", coterie.ErrClosed)

// Close deregisters the instance at once, and returns when that is done. Without a quorum it returns when
// the lease must have expired. Close is idempotent.
func (r *Registration) Close() {
	r.end(errRegistrationClosed)
	<-r.done
}
