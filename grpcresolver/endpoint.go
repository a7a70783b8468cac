// SPDX-License-Identifier: Apache-2.0

package grpcresolver

import (
	"math"
	"reflect"

	"google.golang.org/grpc/experimental/balancer/weight"
	"google.golang.org/grpc/resolver"

	"github.com/coterie-kv/coterie/registry"
)

// InstanceFromEndpoint returns the instance that an endpoint is: for balancers of your own. It is false for
// endpoints of other resolvers. The instance is shared: its Metadata must not be changed.
func InstanceFromEndpoint(e resolver.Endpoint) (registry.Instance, bool) {
	d, ok := e.Attributes.Value(key{}).(described)
	return d.Instance, ok
}

// key is that of an instance among an endpoint's attributes.
type key struct{}

// described is an instance as an attribute, which gRPC compares and prints.
type described struct{ registry.Instance }

// Equal reports whether o is the same: instances have a map, and cannot be compared without.
func (d described) Equal(o any) bool { return reflect.DeepEqual(any(d), o) }

func (d described) String() string { return d.ID + " at " + d.Addr }

// stateOf returns instances as gRPC has them. Each is an endpoint of one address, with the weight
// that gRPC's balancers look for. An attribute belongs to the endpoint and never to its address,
// since gRPC ends the connection to an address whose attributes have changed, and Load changes
// often.
func stateOf(instances []registry.Instance) resolver.State {
	var s resolver.State
	for _, i := range instances {
		a := resolver.Address{Addr: i.Addr}
		e := resolver.Endpoint{Addresses: []resolver.Address{a}}
		e.Attributes = e.Attributes.WithValue(key{}, described{i})
		// Balancers add them up, in 32 bits.
		w := min(max(i.Weight, 1), math.MaxInt32/len(instances))
		s.Endpoints = append(s.Endpoints, weight.Set(e, weight.EndpointInfo{Weight: uint32(w)}))
		s.Addresses = append(s.Addresses, a) // for balancers that do not know of endpoints
	}
	return s
}
