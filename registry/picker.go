// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/coterie-kv/coterie"
)

// A Policy determines how a [Picker] picks.
type Policy uint8

// The policies. LeastLoaded and LeastInFlight draw two instances at random and take the better one, so
// that not all pickers of a service choose the same instance.
const (
	RoundRobin    Policy = iota // each instance in turn
	Weighted                    // at random, in proportion to Weight
	LeastLoaded                 // the lower reported Load; for equal loads, as LeastInFlight
	LeastInFlight               // the fewer picks of this Picker that are not Done, in proportion to Weight
)

// A Picker picks instances of a service from a list in memory, and keeps that list current. Its methods
// are safe for concurrent use. [Picker.Pick] takes no lock.
type Picker struct {
	// One goroutine publishes the lists of a Picker that follows a service; it alone writes err, before it
	// closes done. The fields policy, zone, self, end and done never change.

	policy Policy
	zone   string
	self   string // the ID of the instance that is never picked; empty: none
	newest atomic.Pointer[list]
	turn   atomic.Uint64
	end    context.CancelCauseFunc // ends the goroutine; nil for a static picker
	done   chan struct{}           // closed when the goroutine has ended; nil for a static picker
	err    error                   // why the goroutine has ended
}

// A list is immutable.
type list struct {
	all, near candidates    // near: those of the preferred zone, or all
	over      chan struct{} // closed when there is a newer list
}

type candidates struct {
	of    []*candidate
	until []int64 // the sum of the weights up to each candidate
}

type candidate struct {
	Instance
	inFlight *atomic.Int64 // the same counter in all lists that have this ID
}

// A PickerOption is an option of [NewPicker] and [NewStaticPicker].
type PickerOption func(*Picker)

// WithPolicy sets the policy. The default is [RoundRobin].
func WithPolicy(p Policy) PickerOption { return func(k *Picker) { k.policy = p } }

// WithPreferredZone makes the Picker pick instances of a zone. It picks from other zones only if the
// zone has no instance, or none besides those that were tried. So the last instances of a zone take all of
// the zone's load.
func WithPreferredZone(zone string) PickerOption { return func(k *Picker) { k.zone = zone } }

// WithoutSelf excludes an instance by its ID: the one that picks. Without this option, an instance that
// calls its own service may pick itself. If the service has no other instance, [Picker.Pick] returns
// [ErrNoInstance].
func WithoutSelf(id string) PickerOption { return func(k *Picker) { k.self = id } }

// NewPicker returns a Picker for a service. It starts with the list that the node knows: it does not
// ask the cluster and does not block. On a node that has just started the list may be empty; see
// [Picker.Wait]. The Picker follows the service until [Picker.Close], or until the node closes; it does
// not end with ctx. Without a quorum it keeps the last list. A Picker writes nothing to the store, and takes
// one goroutine and one watch.
//
// Errors: coterie.ErrInvalidOption for an unknown policy or a service without a name; ctx's cause; coterie.ErrClosed.
func NewPicker(ctx context.Context, n *coterie.Node, service string, opts ...PickerOption) (*Picker, error) {
	known, err := Resolve(ctx, n, service, coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	p, err := NewStaticPicker(known, opts...)
	if err != nil {
		return nil, err
	}
	ctx, p.end = context.WithCancelCause(context.WithoutCancel(ctx))
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		for instances, err := range Follow(ctx, n, service) {
			if err != nil {
				p.err = err
				return
			}
			p.publish(instances)
		}
	}()
	return p, nil
}

// NewStaticPicker returns a Picker for a fixed list of instances, each with its own ID. It is for
// callers that maintain the list themselves, such as one that picks among open connections. It follows
// no service and needs no Close; [Picker.WithInstances] changes the list. It copies the list, and does
// not block.
//
// Errors: coterie.ErrInvalidOption for an unknown policy.
func NewStaticPicker(instances []Instance, opts ...PickerOption) (*Picker, error) {
	p := &Picker{}
	for _, opt := range opts {
		opt(p)
	}
	if p.policy > LeastInFlight {
		return nil, fmt.Errorf("%w: unknown policy %d", coterie.ErrInvalidOption, p.policy)
	}
	p.newest.Store((&list{}).next(p, byID(instances)))
	return p, nil
}

// WithInstances returns a static Picker, as [NewStaticPicker] does, with the options of this one and
// other instances. It continues the counts of this one: an instance of both lists has the picks of both
// Pickers in flight, and the turn continues. It does not block.
func (p *Picker) WithInstances(instances []Instance) *Picker {
	o := &Picker{policy: p.policy, zone: p.zone, self: p.self}
	o.turn.Store(p.turn.Load())
	o.newest.Store(p.newest.Load().next(p, byID(instances)))
	return o
}

// byID returns a copy of instances in the order of their IDs, which is the order of a list.
func byID(instances []Instance) []Instance {
	return slices.SortedFunc(slices.Values(instances), func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
}

// publish replaces the list.
func (p *Picker) publish(instances []Instance) {
	last := p.newest.Load()
	p.newest.Store(last.next(p, instances))
	close(last.over)
}

// next returns a list of other instances, which are in the order of their IDs. An instance that was in
// the last list keeps its counter, so its picks in flight still count.
func (last *list) next(p *Picker, instances []Instance) *list {
	l := &list{over: make(chan struct{})}
	for _, i := range instances {
		if p.self != "" && i.ID == p.self {
			continue
		}
		c := &candidate{i, &atomic.Int64{}}
		if same, ok := slices.BinarySearchFunc(last.all.of, i.ID, (*candidate).compare); ok {
			c.inFlight = last.all.of[same].inFlight
		}
		l.all.add(c)
		if p.zone != "" && i.Zone == p.zone {
			l.near.add(c)
		}
	}
	if len(l.near.of) == 0 {
		l.near = l.all
	}
	return l
}

func (c *candidates) add(new *candidate) {
	sum := new.weight()
	if n := len(c.until); n > 0 {
		sum += c.until[n-1]
	}
	c.of, c.until = append(c.of, new), append(c.until, sum)
}

// compare orders a list by ID.
func (c *candidate) compare(id string) int { return strings.Compare(c.ID, id) }

// maxWeight bounds a weight so that no sum of weights overflows.
const maxWeight = math.MaxInt32

func (c *candidate) weight() int64 { return int64(min(max(c.Weight, 1), maxWeight)) }

// A PickedInstance is an instance that [Picker.Pick] returned. Call Done when the work for which it
// was picked has ended.
type PickedInstance struct {
	*Instance // shared: it must not be changed
	inFlight  *atomic.Int64
}

// Done ends the use of the instance: [LeastInFlight] no longer counts it. Call it exactly once. A second
// call would count for another pick of the same instance, and make it seem less busy than it is.
func (p PickedInstance) Done() { p.inFlight.Add(-1) }

// Pick picks an instance, other than those with the IDs in tried. It does not block, and takes tens of
// nanoseconds. The instance may have left since the list was made.
//
// Errors: ErrNoInstance.
func (p *Picker) Pick(tried ...string) (PickedInstance, error) {
	l := p.newest.Load()
	c := p.pick(l.near, tried)
	if c == nil {
		if c = p.pick(l.all, tried); c == nil {
			return PickedInstance{}, ErrNoInstance
		}
	}
	c.inFlight.Add(1)
	return PickedInstance{&c.Instance, c.inFlight}, nil
}

// pick returns nil if every candidate was tried.
func (p *Picker) pick(among candidates, tried []string) *candidate {
	n := len(among.of)
	if n == 0 {
		return nil
	}
	at := 0
	switch p.policy {
	case RoundRobin:
		at = int((p.turn.Add(1) - 1) % uint64(n))
	case Weighted:
		drawn := rand.Int64N(among.until[n-1])
		at = sort.Search(n, func(i int) bool { return among.until[i] > drawn })
	default:
		at = rand.IntN(n)
		if n > 1 {
			other := (at + 1 + rand.IntN(n-1)) % n
			if p.better(among.of[other], among.of[at]) {
				at = other
			}
		}
	}
	for range n { // the first iteration returns unless that candidate was tried
		if c := among.of[at]; !slices.Contains(tried, c.ID) {
			return c
		}
		at = (at + 1) % n
	}
	return nil
}

// better reports whether the policy prefers a to b.
func (p *Picker) better(a, b *candidate) bool {
	if p.policy == LeastLoaded && a.Load != b.Load {
		return a.Load < b.Load
	}
	return a.inFlight.Load()*b.weight() < b.inFlight.Load()*a.weight()
}

// Instances returns the list from which the Picker picks, in the order of the IDs.
func (p *Picker) Instances() []Instance {
	var instances []Instance
	for _, c := range p.newest.Load().all.of {
		instances = append(instances, c.Instance)
	}
	return instances
}

// Wait blocks until the list has an instance.
//
// Errors: ctx's cause; coterie.ErrClosed when the Picker or its node has closed.
func (p *Picker) Wait(ctx context.Context) error {
	for {
		l := p.newest.Load()
		if len(l.all.of) > 0 {
			return nil
		}
		select {
		case <-l.over:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.done:
			return p.err
		}
	}
}

// Done returns a channel that is closed when the Picker no longer follows its service, after
// [Picker.Close] or with the node. The last list stays, and Pick continues to use it. A static Picker
// returns nil.
func (p *Picker) Done() <-chan struct{} { return p.done }

// Close stops following the service, and returns when the Picker's goroutine has ended. The last list
// stays, and Pick continues to use it. Close is idempotent, and does nothing to a static Picker.
func (p *Picker) Close() {
	if p.end == nil {
		return
	}
	p.end(fmt.Errorf("registry: the picker is closed: %w", coterie.ErrClosed))
	<-p.done
}
