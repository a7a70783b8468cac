// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/coterie-kv/coterie"
)

// A link is the network of one node. It can be cut.
type link struct {
	coterie.Network
	net.Listener
	mu    sync.Mutex
	isCut bool
	conns []net.Conn
}

// cut closes all connections of the link and refuses new ones, or repairs the link.
func (l *link) cut(isCut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = isCut
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

// through adds a connection to the link, or refuses it if the link is cut.
func (l *link) through(c net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		return nil, errors.Join(errors.New("the link is cut"), c.Close())
	}
	l.conns = append(l.conns, c)
	return c, nil
}

func (l *link) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := l.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return l.through(c)
}

func (l *link) Listen(addr string) (_ net.Listener, err error) {
	l.Listener, err = l.Network.Listen(addr)
	return l, err
}

func (l *link) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c, err = l.through(c); err == nil {
			return c, nil
		}
	}
}
