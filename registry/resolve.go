// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie"
)

// Resolve returns the instances of a service that are registered now, in the order of their IDs. It
// is linearizable, and blocks without a quorum until ctx ends; with coterie.WithSerializable it
// returns at once what this node knows. None is no error. What is stored under the service's prefix
// and is no instance is left out.
//
// Errors: ErrInvalidOption for a service without a name; those of coterie's Get.
func Resolve(ctx context.Context, n *coterie.Node, service string, opts ...coterie.ScanOption) ([]Instance, error) {
	if service == "" {
		return nil, errNoName
	}
	gets := []coterie.GetOption{coterie.WithPrefix()}
	for _, opt := range opts {
		gets = append(gets, opt)
	}
	r, err := n.Get(ctx, service+"/", gets...)
	if err != nil {
		return nil, err
	}
	return instances(service, slices.Values(r.KVs)), nil
}

// Follow yields the instances of a service, as Resolve returns them, and again after each change of
// one of them. Without a quorum the first is waited for; later the list stays what it was. It ends
// only with ctx or the node, or at once for a service without a name, with a pair whose error says which. It takes one watch, and a copy of
// the list for each change.
func Follow(ctx context.Context, n *coterie.Node, service string) iter.Seq2[[]Instance, error] {
	return func(yield func([]Instance, error) bool) {
		if service == "" {
			yield(nil, errNoName)
			return
		}
		for m, err := range coterie.Follow(ctx, n, service+"/") {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(instances(service, maps.Values(m.KVs)), nil) {
				return
			}
		}
	}
}

// instances returns those of a service, without those of one whose name begins with its name.
func instances(service string, kvs iter.Seq[coterie.KeyValue]) (found []Instance) {
	for kv := range kvs {
		if i, ok := decode(kv); ok && kv.Key == service+"/"+i.ID {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	return found
}
