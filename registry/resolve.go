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

// Resolve returns the instances of a service that are registered now, in the order of their IDs. The
// read is linearizable, so it blocks until ctx ends if there is no quorum. With
// [coterie.WithSerializable] it returns at once with the list that this node knows. An empty list is
// not an error. Resolve skips keys below the service's prefix that are not instances.
//
// Errors: coterie.ErrInvalidOption for a service without a name; those of [coterie.Node.Get].
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

// Follow yields the instances of a service as [Resolve] returns them, and yields the new list after
// each change. Without a quorum it waits for the first list; later the list stays as it is. Follow ends
// when ctx ends or the node closes, or at once for a service without a name. Its last pair has the
// error. It takes one watch, and a copy of the list for each change.
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

// instances returns the instances of a service in the order of their IDs. It skips those of a service
// with a name that continues this service's name.
func instances(service string, kvs iter.Seq[coterie.KeyValue]) (found []Instance) {
	for kv := range kvs {
		if i, ok := decode(kv); ok && kv.Key == service+"/"+i.ID {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	return found
}
