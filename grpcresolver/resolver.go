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

// Scheme is the scheme of the targets, as in "coterie:///services/orders".
const Scheme = "coterie"

// ErrInvalidTarget means that a target does not name a service. Calls of the client fail with
// codes.Unavailable and the reason.
var ErrInvalidTarget = errors.New("grpcresolver: the target does not name a service")

// New returns a builder for grpc.WithResolvers. It resolves services with the state of a node. It is safe
// for concurrent use by any number of clients, and does not affect other clients of the process.
//
// A client starts with the instances that the node knows, without asking the cluster. If the node knows
// none, calls wait for an answer of the cluster. They fail with codes.Unavailable if there is no answer within
// five seconds, and at once if there is no instance. Calls with grpc.WaitForReady wait in both cases.
// When the node closes, clients keep the last list. A client that is made later, or leaves gRPC's idle state
// later, cannot call.
//
// Each client that is not idle takes one watch and one goroutine, which end with the client.
func New(n *coterie.Node) resolver.Builder { return builder{n} }

type builder struct{ node *coterie.Node }

func (b builder) Scheme() string { return Scheme }

// Build starts to resolve a target. It does not wait for the cluster.
//
// Errors: ErrInvalidTarget; ErrInvalidOption without a node; ErrClosed of the node.
func (b builder) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	service, err := serviceOf(target)
	if err != nil {
		return nil, err
	}
	if b.node == nil { // gRPC also calls Build in its own goroutines, where a panic would end the program
		return nil, fmt.Errorf("%w: grpcresolver.New got no node", coterie.ErrInvalidOption)
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

// serviceOf returns the service of a target.
func serviceOf(target resolver.Target) (string, error) {
	u, service := target.URL, target.Endpoint()
	switch {
	case u.Host != "" || u.User != nil:
		return "", fmt.Errorf("%w: %q has a host; three slashes come before the service", ErrInvalidTarget, u.String())
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%w: %q has a query or a fragment; write %%3F and %%23 in the name of a service", ErrInvalidTarget, u.String())
	case service == "":
		return "", fmt.Errorf("%w: %q is empty after the slashes", ErrInvalidTarget, u.String())
	}
	return service, nil
}

// A following updates one client with the instances of one service.
type following struct {
	node    *coterie.Node
	service string
	cc      resolver.ClientConn
	end     context.CancelFunc
	done    chan struct{}
}

// patience is how long calls wait for the cluster if the node knows no instance of the service.
const patience = 5 * time.Second

// run publishes the instances, and again after each change, until ctx ends or the node closes.
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

// ask waits for the first answer of the cluster, for a limited time. Until a resolver reports a state or an
// error, gRPC lets all calls wait, including those that should fail fast.
func (f *following) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := registry.Resolve(ctx, f.node, f.service)
	if errors.Is(err, context.DeadlineExceeded) {
		f.cc.ReportError(fmt.Errorf("grpcresolver: no instance of %s is known, and the cluster does not answer", f.service))
	}
}

// fail reports why the list no longer changes. Balancers continue with the last list.
func (f *following) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		f.cc.ReportError(fmt.Errorf("grpcresolver: %s: %w", f.service, err))
	}
}

// publish gives the list to the client. A balancer returns an error to ask for another list, for example
// because this one is empty. publish ignores it, because it publishes each change anyway.
func (f *following) publish(instances []registry.Instance) {
	_ = f.cc.UpdateState(stateOf(instances))
}

// ResolveNow does nothing, because each change is pushed.
func (f *following) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the goroutine and waits for it.
func (f *following) Close() {
	f.end()
	<-f.done
}
