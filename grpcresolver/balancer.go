// SPDX-License-Identifier: Apache-2.0

package grpcresolver

import (
	"encoding/json"
	"fmt"
	"sync"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/coterie-kv/coterie/registry"
)

// BalancerName is the name of NewBalancer's policy in a service config.
const BalancerName = "coterie"

// NewBalancer returns a balancing policy that keeps a connection to each instance and picks among
// those that are ready as registry.Picker does. gRPC finds policies by name alone, in a table of
// the process that must not be written while it is read: so, first thing in main,
//
//	balancer.Register(grpcresolver.NewBalancer())
//
// and for each client a service config such as
//
//	{"loadBalancingConfig": [{"coterie": {"policy": "least_in_flight", "zone": "eu-1"}}]}
//
// The policies are round_robin (the default), weighted, least_loaded and least_in_flight. zone is
// for registry.WithPreferredZone: while a connection to an instance of the zone is ready, no other is asked.
// What is in flight is counted for each client alone, and forgotten of an instance whose connection
// is lost. Of instances that have the same address one counts. Endpoints of other resolvers are
// instances without zone, weight and load.
func NewBalancer() balancer.Builder { return policy{} }

type policy struct{}

func (policy) Name() string { return BalancerName }

// A config is a service config's, checked. It is immutable.
type config struct {
	serviceconfig.LoadBalancingConfig
	none *registry.Picker // that picks by this config, from nothing yet
}

// ParseConfig checks what a service config says. What it does not know it ignores, as gRPC has it.
//
// Errors: for a policy that there is not, which fails grpc.NewClient.
func (policy) ParseConfig(text json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	said := struct{ Policy, Zone string }{Policy: "round_robin"}
	if err := json.Unmarshal(text, &said); err != nil {
		return nil, fmt.Errorf("grpcresolver: config of the balancer: %w", err)
	}
	by, ok := map[string]registry.Policy{
		"round_robin":     registry.RoundRobin,
		"weighted":        registry.Weighted,
		"least_loaded":    registry.LeastLoaded,
		"least_in_flight": registry.LeastInFlight,
	}[said.Policy]
	if !ok {
		return nil, fmt.Errorf("grpcresolver: config of the balancer: no policy %q", said.Policy)
	}
	none, err := registry.NewStaticPicker(nil, registry.WithPolicy(by), registry.WithPreferredZone(said.Zone))
	return &config{none: none}, err
}

func (policy) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	b := &balancing{ClientConn: cc, reason: registry.ErrNoInstance}
	connect := balancer.Get(pickfirst.Name).Build
	b.Balancer = endpointsharding.NewBalancer(b, opts, connect, endpointsharding.Options{})
	return b
}

// A balancing is the balancer of one client. Its child keeps the connections, and tells it of them
// through UpdateState.
type balancing struct {
	balancer.ClientConn
	balancer.Balancer

	// mu is held while the client is told, so that it is told in order; the child holds its own then.
	mu     sync.Mutex
	config *config
	last   *registry.Picker // what the client has, for its counts
	reason error            // why there are no endpoints, if there are none
}

// UpdateClientConnState takes what the resolver knows.
//
// Errors: ErrBadResolverState for an empty list, or without a config of this policy.
func (b *balancing) UpdateClientConnState(s balancer.ClientConnState) error {
	c, ok := s.BalancerConfig.(*config)
	if !ok {
		return balancer.ErrBadResolverState
	}
	b.mu.Lock()
	if b.config != c {
		b.config, b.last = c, c.none
	}
	b.reason = registry.ErrNoInstance
	b.mu.Unlock()
	// The children have no config, and heed gRPC's health checks.
	return b.Balancer.UpdateClientConnState(balancer.ClientConnState{ResolverState: pickfirst.EnableHealthListener(s.ResolverState)})
}

// ResolverError is what calls fail with while there are no endpoints; else it changes nothing.
func (b *balancing) ResolverError(err error) {
	b.mu.Lock()
	b.reason = err
	b.mu.Unlock()
	b.Balancer.ResolverError(err)
}

// UpdateState is the child's, about the connections: it gives the client a picker of those that are
// ready. While none is, the child's own picker waits or fails as it is due.
func (b *balancing) UpdateState(s balancer.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	children := endpointsharding.ChildStatesFromPicker(s.Picker)
	if len(children) == 0 {
		s.Picker = base.NewErrPicker(b.reason)
	}
	var instances []registry.Instance
	ready := map[string]balancer.Picker{}
	for _, c := range children {
		if c.State.ConnectivityState == connectivity.Ready {
			i := instanceOr(c.Endpoint)
			instances = append(instances, i)
			ready[i.ID] = c.State.Picker
		}
	}
	if len(instances) > 0 {
		b.last = b.last.WithInstances(instances)
		s.Picker = picker{b.last, ready}
	}
	b.ClientConn.UpdateState(s)
}

// instanceOr returns the instance that an endpoint is, or one made of its address.
func instanceOr(e resolver.Endpoint) registry.Instance {
	i, ok := InstanceFromEndpoint(e)
	if !ok {
		i.Addr = e.Addresses[0].Addr
		i.ID = i.Addr
	}
	return i
}

// A picker picks among the instances whose connections were ready at one moment.
type picker struct {
	among *registry.Picker
	conns map[string]balancer.Picker // by the IDs
}

func (p picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	c, err := p.among.Pick()
	if err != nil {
		return balancer.PickResult{}, err
	}
	r, err := p.conns[c.ID].Pick(info)
	if err != nil {
		c.Done()
		return r, err
	}
	done := r.Done
	r.Done = func(how balancer.DoneInfo) {
		c.Done()
		if done != nil {
			done(how)
		}
	}
	return r, nil
}
