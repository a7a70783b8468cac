// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"container/list"
	"net"
	"sync"
	"time"
)

// A receipt bounds the bytes of all frames that are being received or processed. A frame waits for its
// turn before its payload is read. Frames of up to firstRead bytes pass at once, so that no large or slow
// frame holds up a heartbeat. A frame reserves all its bytes before it is read: no frame waits while it
// holds some, so frames cannot deadlock.
type receipt struct {
	mu      sync.Mutex
	free    int64
	waiting list.List // of *turn, the next one at the front
}

type turn struct {
	size int64
	come chan struct{}
}

// take waits until size bytes are free and reserves them; give returns them. It gives up after the
// duration within, or when one of the gone channels is closed.
func (r *receipt) take(size int64, within time.Duration, gone ...<-chan struct{}) bool {
	r.mu.Lock()
	if r.waiting.Len() == 0 && r.free >= size {
		r.free -= size
		r.mu.Unlock()
		return true
	}
	t := &turn{size, make(chan struct{})}
	place := r.waiting.PushBack(t)
	r.mu.Unlock()
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case <-t.come:
		return true
	case <-limit.C:
	case <-gone[0]:
	case <-gone[1]:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-t.come: // in the meantime
		r.free += t.size
	default:
		r.waiting.Remove(place)
	}
	r.next()
	return false
}

func (r *receipt) give(size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free += size
	r.next()
}

// next admits the waiting frames that fit. The caller holds r.mu.
func (r *receipt) next() {
	for front := r.waiting.Front(); front != nil; front = r.waiting.Front() {
		t := front.Value.(*turn)
		if t.size > r.free {
			return
		}
		r.free -= t.size
		r.waiting.Remove(front)
		close(t.come)
	}
}

// guests are the connections of callers that are not known members. Their number is bounded: the one that
// has been idle longest is closed when there are more.
type guests struct {
	mu   sync.Mutex
	most int
	list list.List // of *guest, the most recently active at the back
}

type guest struct {
	conn net.Conn
	busy bool // it has a request in progress
}

func (g *guests) enter(nc net.Conn) *list.Element {
	g.mu.Lock()
	place := g.list.PushBack(&guest{conn: nc})
	var out *list.Element
	if g.list.Len() > g.most {
		out = g.list.Front()
		for e := out; e != place; e = e.Next() {
			if !e.Value.(*guest).busy {
				out = e
				break
			}
		}
		g.list.Remove(out)
	}
	g.mu.Unlock()
	if out != nil {
		out.Value.(*guest).conn.Close()
	}
	return place
}

// heard notes the begin or end of a guest's request.
func (g *guests) heard(place *list.Element, busy bool) {
	if place == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	place.Value.(*guest).busy = busy
	g.list.MoveToBack(place)
}

// leave removes a guest that has disconnected or become a member.
func (g *guests) leave(place *list.Element) {
	if place == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list.Remove(place)
}
