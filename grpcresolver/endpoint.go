// SPDX-License-Identifier: Apache-2.0

package grpcresolver

import (
	"math"
	"reflect"

	"google.golang.org/grpc/experimental/balancer/weight"
	"google.golang.org/grpc/resolver"

	"github.com/coterie-kv/coterie/registry"
)

// InstanceFromEndpoint returns the instance of an endpoint, for custom balancers. It returns false for the
// endpoints of other resolvers. The Metadata of the instance is shared and must not be changed.
func InstanceFromEndpoint(e resolver.Endpoint) (registry.Instance, bool) {
	d, ok := e.Attributes.Value(key{}).(described)
	return d.Instance, ok
}

// key is the key of an instance in the attributes of its endpoint.
type key struct{}

// described is an instance as an attribute. gRPC compares and prints attributes.
type described struct{ registry.Instance }

// Equal reports whether o is the same instance. Instances contain a map, so == cannot compare them.
func (d described) Equal(o any) bool { return reflect.DeepEqual(any(d), o) }

func (d described) String() string { return d.ID + " at " + d.Addr }

// stateOf returns instances in gRPC's form. Each instance is an endpoint with one address and with the weight
// that gRPC's balancers read. The attributes belong to the endpoint and not to its address: gRPC closes the
// connection to an address if its attributes change, and Load changes often.
func stateOf(instances []registry.Instance) resolver.State {
	var s resolver.State
	for _, i := range instances {
		a := resolver.Address{Addr: i.Addr}
		e := resolver.Endpoint{Addresses: []resolver.Address{a}}
		e.Attributes = e.Attributes.WithValue(key{}, described{i})
		// Balancers add the weights in 32 bits.
		w := min(max(i.Weight, 1), math.MaxInt32/len(instances))
		s.Endpoints = append(s.Endpoints, weight.Set(e, weight.EndpointInfo{Weight: uint32(w)}))
		s.Addresses = append(s.Addresses, a) // for balancers that do not support endpoints
	}
	return s
}
