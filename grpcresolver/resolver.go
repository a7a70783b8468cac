// SPDX-License-Identifier: Apache-2.0

package grpcresolver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/resolver"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/registry"
)

// Scheme begins the targets that are resolved here, as "coterie:///services/orders".
const Scheme = "coterie"

// ErrInvalidTarget: a target does not name a service. Calls of such a client fail with codes.Unavailable
// and the reason.
var ErrInvalidTarget = errors.New("grpcresolver: no target of a service")

// New returns a builder for grpc.WithResolvers, which resolves services by what a node knows. It
// may be used for any number of clients, concurrently; nothing is registered for other clients of
// the process.
//
// A client begins with the instances that the node knows, without asking the cluster. If it knows
// of none, calls wait until the cluster has been asked, and fail with codes.Unavailable when it has
// not answered for five seconds. So they do, at once, when there is no instance. Those that
// WaitForReady wait in either case. A client whose node is closed keeps the last list; one that is
// made then, or comes back from gRPC's idleness, cannot call.
//
// Each client that is not idle has one watch and one goroutine, which ends with the client.
func New(n *coterie.Node) resolver.Builder { return builder{n} }

type builder struct{ node *coterie.Node }

func (b builder) Scheme() string { return Scheme }

// Build begins to resolve a target. It does not wait for the cluster.
//
// Errors: ErrInvalidTarget; ErrInvalidOption without a node; ErrClosed of the node.
func (b builder) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	service, err := serviceOf(target)
	if err != nil {
		return nil, err
	}
	if b.node == nil { // gRPC calls Build on goroutines of its own, too
		return nil, fmt.Errorf("%w: grpcresolver.New was given no node", coterie.ErrInvalidOption)
	}
	known, err := registry.Resolve(context.Background(), b.node, service, coterie.WithSerializable())
	if err != nil {
		return nil, fmt.Errorf("grpcresolver: %s: %w", service, err)
	}
	ctx, end := context.WithCancel(context.Background())
	f := &following{node: b.node, service: service, cc: cc, end: end, done: make(chan struct{})}
	if len(known) > 0 {
		f.publish(known)
	}
	go f.run(ctx, len(known) > 0)
	return f, nil
}

// serviceOf returns the service that a target names.
func serviceOf(target resolver.Target) (string, error) {
	u, service := target.URL, target.Endpoint()
	switch {
	case u.Host != "" || u.User != nil:
		return "", fmt.Errorf("%w: %q has a host; three slashes come before the service", ErrInvalidTarget, u.String())
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%w: %q has a query or a fragment; in a service, write %%3F and %%23", ErrInvalidTarget, u.String())
	case service == "":
		return "", fmt.Errorf("%w: %q names none", ErrInvalidTarget, u.String())
	}
	return service, nil
}

// A following tells one client of one service.
type following struct {
	node    *coterie.Node
	service string
	cc      resolver.ClientConn
	end     context.CancelFunc
	done    chan struct{}
}

// patience is how long calls wait for the cluster when nothing is known of a service.
const patience = 5 * time.Second

// run publishes the instances, again after each change, until ctx or the node ends.
func (f *following) run(ctx context.Context, known bool) {
	defer close(f.done)
	if !known {
		f.ask(ctx)
	}
	for instances, err := range registry.Follow(ctx, f.node, f.service) {
		if err != nil {
			f.fail(ctx, err)
			return
		}
		f.publish(instances)
	}
}

// ask waits for the cluster's first answer, but not for ever: without any word of the resolver gRPC
// has even those calls wait that would rather fail.
func (f *following) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := registry.Resolve(ctx, f.node, f.service)
	if errors.Is(err, context.DeadlineExceeded) {
		f.cc.ReportError(fmt.Errorf("grpcresolver: nothing is known of %s, and the cluster does not answer", f.service))
	}
}

// fail tells why the list does not change any more. Balancers go on with the last one.
func (f *following) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		f.cc.ReportError(fmt.Errorf("grpcresolver: %s: %w", f.service, err))
	}
}

// publish gives the client a list. That balancers want another one, as when it is empty, is no
// reason to do anything: it comes by itself.
func (f *following) publish(instances []registry.Instance) {
	_ = f.cc.UpdateState(stateOf(instances))
}

// ResolveNow does nothing: changes are pushed.
func (f *following) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the goroutine, and waits for it.
func (f *following) Close() {
	f.end()
	<-f.done
}
