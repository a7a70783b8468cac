// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/coterie-kv/coterie"
)

// tcp is the network of nodes: coterie's default.
type tcp struct{}

func (tcp) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (tcp) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// A link connects one node with a network, until cut. Its methods may be called concurrently.
type link struct {
	network coterie.Network

	mu       sync.Mutex // guards the fields below
	isCut    bool
	open     map[net.Conn]struct{}
	listener net.Listener
}

var errCut = errors.New("the node is cut off")

// join connects the node again.
func (l *link) join() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut, l.open = false, map[net.Conn]struct{}{}
}

// cut closes all connections of the node and lets no others begin.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = true
	if l.listener != nil {
		l.listener.Close()
	}
	for conn := range l.open {
		conn.Close()
	}
}

// add returns a connection that cut will close.
func (l *link) add(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		conn.Close()
		return nil, errCut
	}
	l.open[conn] = struct{}{}
	return conn, nil
}

func (l *link) Listen(addr string) (net.Listener, error) {
	listener, err := l.network.Listen(addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener = listener
	return linkListener{listener, l}, nil
}

func (l *link) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return l.add(l.network.Dial(ctx, addr))
}

// A linkListener adds the connections that it accepts to a link.
type linkListener struct {
	net.Listener
	link *link
}

func (l linkListener) Accept() (net.Conn, error) { return l.link.add(l.Listener.Accept()) }
