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

// A Policy is how a Picker picks.
type Policy uint8

// The policies. Those that compare draw two instances at random and take the better one, so that
// all pickers of a service do not run to the same.
const (
	RoundRobin    Policy = iota // each in turn
	Weighted                    // at random, each by its Weight
	LeastLoaded                 // the lower Load, as reported; of equals, the one with less in flight
	LeastInFlight               // the fewer choices of this Picker that are not Done, by Weight
)

// A Picker picks instances of a service, from a list in memory that is kept current. Its methods
// may be called concurrently; Pick takes no lock.
type Picker struct {
	policy Policy
	zone   string
	self   string // the ID of the instance that picks, if it is one
	newest atomic.Pointer[list]
	turn   atomic.Uint64
	done   chan struct{} // nil: it follows nothing
	err    error         // why it ended, once done is closed
}

// A list is immutable.
type list struct {
	all, near candidates    // near: those of the zone, or all
	over      chan struct{} // closed when there is a newer one
}

type candidates struct {
	of    []*candidate
	until []int64 // the sum of the weights up to each
}

type candidate struct {
	Instance
	inFlight *atomic.Int64 // shared by all lists that have this ID
}

// A PickerOption is an option of [NewPicker] and [NewStaticPicker].
type PickerOption func(*Picker)

// WithPolicy sets how instances are picked. Defaults to RoundRobin.
func WithPolicy(p Policy) PickerOption { return func(k *Picker) { k.policy = p } }

// WithPreferredZone has instances of a zone be picked as long as there is one that was not tried, and others
// only then: mind that they have to bear all of the zone's load.
func WithPreferredZone(zone string) PickerOption { return func(k *Picker) { k.zone = zone } }

// WithoutSelf names the instance that picks, by its ID: it is never picked, and a service that has no other
// instance has none. Without it, an instance that calls its own service may be given itself.
func WithoutSelf(id string) PickerOption { return func(k *Picker) { k.self = id } }

// NewPicker makes a Picker of a service, and keeps it current until ctx ends or the node closes. It
// begins with what the node knows, without asking the cluster, and does not block; see Wait. When
// the quorum is lost it goes on with the last known list. It writes nothing; one goroutine serves
// it.
//
// Errors: ErrInvalidOption for an unknown policy or a service without a name; ctx's cause; ErrClosed.
func NewPicker(ctx context.Context, n *coterie.Node, service string, opts ...PickerOption) (*Picker, error) {
	known, err := Resolve(ctx, n, service, coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	p, err := NewStaticPicker(known, opts...)
	if err != nil {
		return nil, err
	}
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

// NewStaticPicker makes a Picker of instances that are given, each with an ID of its own: for those who
// know by themselves whom to ask, as who holds connections does. It follows nothing and never ends;
// see WithInstances. It does not block, and takes a copy of the list.
//
// Errors: ErrInvalidOption for an unknown policy.
func NewStaticPicker(instances []Instance, opts ...PickerOption) (*Picker, error) {
	p := &Picker{}
	for _, opt := range opts {
		opt(p)
	}
	if p.policy > LeastInFlight {
		return nil, fmt.Errorf("%w: policy %d", coterie.ErrInvalidOption, p.policy)
	}
	p.newest.Store((&list{}).next(p, byID(instances)))
	return p, nil
}

// WithInstances returns a Picker, as of NewStaticPicker, that picks from other instances as this one does, and
// goes on with what it has counted: an instance that is in both lists has in flight what either has
// picked, and the turn begins where this one's is. It does not block.
func (p *Picker) WithInstances(instances []Instance) *Picker {
	o := &Picker{policy: p.policy, zone: p.zone, self: p.self}
	o.turn.Store(p.turn.Load())
	o.newest.Store(p.newest.Load().next(p, byID(instances)))
	return o
}

// byID returns a copy of instances in the order in which lists are.
func byID(instances []Instance) []Instance {
	return slices.SortedFunc(slices.Values(instances), func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
}

// publish makes a list of instances the newest.
func (p *Picker) publish(instances []Instance) {
	last := p.newest.Load()
	p.newest.Store(last.next(p, instances))
	close(last.over)
}

// next returns a list of other instances, in the order of their IDs. What is in flight of those
// that were there before is shared.
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

// compare is for lists, which are in the order of the IDs.
func (c *candidate) compare(id string) int { return strings.Compare(c.ID, id) }

// maxWeight bounds what counts of a weight, so that no sum of them overflows.
const maxWeight = math.MaxInt32

func (c *candidate) weight() int64 { return int64(min(max(c.Weight, 1), maxWeight)) }

// A PickedInstance is an instance that [Picker.Pick] returned. Call Done when the work for which it
// was picked has ended.
type PickedInstance struct {
	// Instance is a copy, but its Metadata is shared and must not be changed.
	Instance
	inFlight *atomic.Int64
}

// Done ends the use of the instance: [LeastInFlight] counts it no more. Call it exactly once. A second
// call is counted for another pick of the same instance, so the instance seems less busy than it is.
func (p PickedInstance) Done() { p.inFlight.Add(-1) }

// Pick picks an instance, other than those whose IDs were tried. It does not block, and costs tens
// of nanoseconds. It is a guess: the instance may have gone since.
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
	return PickedInstance{c.Instance, c.inFlight}, nil
}

// pick returns nil if there is none that was not tried.
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
	for range n { // as a rule, it is the first
		if c := among.of[at]; !slices.Contains(tried, c.ID) {
			return c
		}
		at = (at + 1) % n
	}
	return nil
}

func (p *Picker) better(a, b *candidate) bool {
	if p.policy == LeastLoaded && a.Load != b.Load {
		return a.Load < b.Load
	}
	return a.inFlight.Load()*b.weight() < b.inFlight.Load()*a.weight()
}

// Instances returns the list that is picked from, in the order of the IDs.
func (p *Picker) Instances() []Instance {
	var instances []Instance
	for _, c := range p.newest.Load().all.of {
		instances = append(instances, c.Instance)
	}
	return instances
}

// Wait returns when there is an instance. It blocks until then.
//
// Errors: ctx's cause, or why the Picker has ended.
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

// Done is closed when the Picker has ended, with ctx or with the node. The last known list stays.
// It is nil, and so never closed, for one that follows nothing.
func (p *Picker) Done() <-chan struct{} { return p.done }
