// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/coterie-kv/coterie"
)

// tick asks the watches that have been silent for the interval of notifications for their progress.
func (w *watchStream) tick() {
	now := w.node.Header().Revision
	for _, v := range w.watches {
		if v.progress && v.quiet && !v.ended && v.from <= now {
			v.notify = true
			w.set.RequestProgress(v.id)
		}
		v.quiet = true
	}
}

// A progressCheck is the client's question how far all watches of the stream are.
type progressCheck struct {
	header *pb.ResponseHeader // of the moment of the question
	open   int                // watches that have not reached its revision
}

// checkProgress answers, as soon as every watch has reported all events up to now, with a single response. It does not
// answer without watches, nor while one of them waits for a later revision. etcd does not answer either if a watch is
// behind; here the answer waits.
func (w *watchStream) checkProgress() {
	check := &progressCheck{header: w.header()}
	for _, v := range w.watches {
		if v.from > check.header.Revision {
			return
		}
	}
	for _, v := range w.watches {
		if !v.ended {
			check.open++
			v.asked = append(v.asked, check)
			w.set.RequestProgress(v.id)
		}
	}
}

// progressed handles a report of the set that a watch has sent every event up to a revision.
func (w *watchStream) progressed(v *watch, h coterie.Header) error {
	var reached, later []*progressCheck
	for _, check := range v.asked {
		if check.header.Revision <= h.Revision {
			reached = append(reached, check)
		} else {
			later = append(later, check)
		}
	}
	v.asked = later
	if v.notify {
		v.notify = false
		if err := w.stream.Send(&pb.WatchResponse{Header: w.answerHeader(h), WatchId: v.id}); err != nil {
			return err
		}
	}
	return w.answered(reached)
}

// answered notes that one more watch has answered questions, and sends the answers that are complete.
func (w *watchStream) answered(checks []*progressCheck) error {
	for _, check := range checks {
		if check.open--; check.open > 0 {
			continue
		}
		if err := w.stream.Send(&pb.WatchResponse{Header: check.header, WatchId: invalidWatch}); err != nil {
			return err
		}
	}
	return nil
}
