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

// BalancerName is the name of the policy of [NewBalancer] in a service config.
const BalancerName = "coterie"

// NewBalancer returns a balancing policy that keeps a connection to each instance. It picks among the ready
// connections as a [registry.Picker] does. gRPC finds policies by name in a table of the process that
// must not change while it is in use. So register the policy at the beginning of main:
//
//	balancer.Register(grpcresolver.NewBalancer())
//
// Then give each client a service config such as
//
//	{"loadBalancingConfig": [{"coterie": {"policy": "least_in_flight", "zone": "eu-1"}}]}
//
// The policies are round_robin (the default), weighted, least_loaded and least_in_flight. zone means
// [registry.WithPreferredZone]: calls go to other zones only if no connection to an instance of the zone is
// ready. Each client counts its own calls in flight, and forgets the count of an instance when the
// connection is lost. Instances with the same address count as one. Endpoints of other resolvers count as
// instances without a zone, a weight and a load.
func NewBalancer() balancer.Builder { return policy{} }

type policy struct{}

func (policy) Name() string { return BalancerName }

// A config is the checked form of a service config. It is immutable.
type config struct {
	serviceconfig.LoadBalancingConfig
	none *registry.Picker // has the options of this config, and no instances
}

// ParseConfig checks a service config. It ignores unknown fields, as gRPC does.
//
// Errors: an unknown policy, with which grpc.NewClient fails.
func (policy) ParseConfig(text json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	parsed := struct{ Policy, Zone string }{Policy: "round_robin"}
	if err := json.Unmarshal(text, &parsed); err != nil {
		return nil, fmt.Errorf("grpcresolver: config of the balancer: %w", err)
	}
	by, ok := map[string]registry.Policy{
		"round_robin":     registry.RoundRobin,
		"weighted":        registry.Weighted,
		"least_loaded":    registry.LeastLoaded,
		"least_in_flight": registry.LeastInFlight,
	}[parsed.Policy]
	if !ok {
		return nil, fmt.Errorf("grpcresolver: config of the balancer: unknown policy %q", parsed.Policy)
	}
	none, err := registry.NewStaticPicker(nil, registry.WithPolicy(by), registry.WithPreferredZone(parsed.Zone))
	return &config{none: none}, err
}

func (policy) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	b := &balancing{ClientConn: cc, reason: registry.ErrNoInstance}
	connect := balancer.Get(pickfirst.Name).Build
	b.Balancer = endpointsharding.NewBalancer(b, opts, connect, endpointsharding.Options{})
	return b
}

// A balancing is the balancer of one client. Its child keeps the connections and reports their states to
// UpdateState.
type balancing struct {
	balancer.ClientConn
	balancer.Balancer

	// mu guards the fields below. UpdateState also holds it while it updates the client, so that updates stay
	// in order. The child holds its own lock during that call.
	mu     sync.Mutex
	config *config
	last   *registry.Picker // the Picker that the client uses; the next one continues its counts
	reason error            // the error of calls while there are no endpoints
}

// UpdateClientConnState takes the state of the resolver.
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
	// The children have no config, and use gRPC's health checks.
	return b.Balancer.UpdateClientConnState(balancer.ClientConnState{ResolverState: pickfirst.EnableHealthListener(s.ResolverState)})
}

// ResolverError sets the error of calls while there are no endpoints. Otherwise it changes nothing.
func (b *balancing) ResolverError(err error) {
	b.mu.Lock()
	b.reason = err
	b.mu.Unlock()
	b.Balancer.ResolverError(err)
}

// UpdateState takes the states of the connections from the child, and gives the client a picker of the ready
// ones. If none is ready, the client gets the child's picker, which waits or fails.
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

// instanceOr returns the instance of an endpoint, or one made from its address.
func instanceOr(e resolver.Endpoint) registry.Instance {
	i, ok := InstanceFromEndpoint(e)
	if !ok {
		i.Addr = e.Addresses[0].Addr
		i.ID = i.Addr
	}
	return i
}

// A picker picks among the instances with connections that were ready at one moment.
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
