// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"container/list"
	"net"
	"sync"
	"time"
)

// A receipt bounds the bytes of all frames that are being received and worked on. A frame waits its
// turn before its payload is read; those of up to firstRead bytes pass at once, so that no frame that is
// large or slow holds up a heartbeat. A frame has all that it needs before it is read: so none waits for
// more while it holds some, and frames cannot block each other for good.
type receipt struct {
	mu      sync.Mutex
	free    int64
	waiting list.List // of *turn, the first at the front
}

type turn struct {
	size int64
	come chan struct{}
}

// take waits until size bytes are free, which give returns. It gives up when the time is over, or one of
// the others is closed.
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
	case <-t.come: // meanwhile
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

// next has those go on for which there is room. It is called with r.mu held.
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

// guests are the connections of callers that are no known members. There are few; beyond that the one
// that has been idle longest is closed.
type guests struct {
	mu   sync.Mutex
	most int
	list list.List // of *guest, the one that was heard last at the back
}

type guest struct {
	conn net.Conn
	busy bool // with a request
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

// heard notes that a request of a guest begins or ends.
func (g *guests) heard(place *list.Element, busy bool) {
	if place == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	place.Value.(*guest).busy = busy
	g.list.MoveToBack(place)
}

// leave forgets a guest that has gone, or is a member now.
func (g *guests) leave(place *list.Element) {
	if place == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list.Remove(place)
}
