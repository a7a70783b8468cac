// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"

	"github.com/coterie-kv/coterie/internal/watchhub"
)

// A WatchSet serves many watches on one goroutine, for example the watches of one client of a program. It costs less
// than a goroutine for each watch. Its watches have the properties of [Node.Watch]; their responses come from Next.
//
// One goroutine uses a WatchSet, and closes it at the end.
type WatchSet struct {
	n       *Node
	queue   *watchhub.Queue
	watches map[int64]*setWatch
	turn    *setWatch // the watch that Next reads; nil if it is the turn of the queue
	left    int       // revisions that are left of the turn
}

// A setWatch is a watch of a set.
type setWatch struct {
	cursor
	id      int64
	removed bool
}

// maxTurn is how many revisions a watch of a set returns before the others have their turn.
const maxTurn = 1000

// NewWatchSet returns a set of watches of a node, which has none yet.
func NewWatchSet(n *Node) *WatchSet {
	return &WatchSet{n: n, queue: watchhub.NewQueue(), watches: map[int64]*setWatch{}}
}

// Add adds a watch by the user of a view of the set's node. The caller chooses its ID, which Next returns. [NewUncheckedView] is
// the view of the program itself.
//
// The options [WithCreatedNotify], [WithProgressNotify], [WithProgressRequests] and [WithRequireLeader] are not
// available.
//
// Errors: ErrEmptyKey; ErrInvalidOption, also for an ID that a watch of the set has; those of [UserView.Watch] about
// permissions.
func (s *WatchSet) Add(u *UserView, id int64, key string, opts ...WatchOption) error {
	w := &setWatch{id: id}
	err := w.init(context.Background(), u, key, opts, nil)
	switch {
	case err != nil:
		return err
	case w.created || w.progress || w.requests != nil || w.leader:
		return fmt.Errorf("%w: not available in a WatchSet", ErrInvalidOption)
	case s.watches[id] != nil:
		return fmt.Errorf("%w: the set has a watch with ID %d", ErrInvalidOption, id)
	}
	s.watches[id] = w
	w.start(s.queue)
	w.touched.Owner = w
	w.touched.Poke() // it may begin in the past
	return nil
}

// Remove ends a watch. Next returns no response of it any more. An ID that no watch has is ignored.
func (s *WatchSet) Remove(id int64) {
	w := s.watches[id]
	if w == nil {
		return
	}
	w.stop()
	w.removed = true
	delete(s.watches, id)
}

// RequestProgress asks a watch for a response without events. Next returns it after every event up to a revision
// that is at least the one that the node had applied when RequestProgress was called. A watch from a later revision
// answers when that revision is reached. One response may answer several requests. An ID that no watch has is
// ignored.
func (s *WatchSet) RequestProgress(id int64) {
	if w := s.watches[id]; w != nil {
		w.request()
		w.touched.Poke()
	}
}

// Ready returns a channel that receives a value when Next may return a response. It is the same for each call. To miss
// no response, call Next until it returns false before waiting for a value.
func (s *WatchSet) Ready() <-chan struct{} { return s.queue.Wake() }

// Next returns the next response of a watch of the set, and its ID, or false if there is none now. It does not wait.
// Responses of one watch come in the order of their revisions, and often one after the other. A result with an error
// is the last one of its watch, which is not in the set any more.
//
// Errors: those of [Node.Watch] with which a watch ends; ErrPermissionDenied and ErrUserEmpty.
func (s *WatchSet) Next() (id int64, result WatchResult, ok bool) {
	for {
		if s.turn == nil {
			next := s.queue.Pop()
			if next == nil {
				return 0, WatchResult{}, false
			}
			s.turn, s.left = next.Owner.(*setWatch), maxTurn
		}
		w := s.turn
		if w.removed {
			s.turn = nil
			continue
		}
		var r WatchResponse
		some, err := w.poll(&r)
		if err != nil {
			s.Remove(w.id)
			return w.id, WatchResult{Err: err}, true
		}
		s.left--
		switch {
		case s.left == 0 || !some && w.behind():
			w.touched.Poke() // at the end of the queue
			s.turn = nil
		case !some && !w.owing():
			w.count()
			s.turn = nil
		}
		if some {
			return w.id, WatchResult{WatchResponse: r}, true
		}
	}
}

// Close ends all watches.
func (s *WatchSet) Close() {
	for id := range s.watches {
		s.Remove(id)
	}
}
