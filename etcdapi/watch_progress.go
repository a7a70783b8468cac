// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/coterie-kv/coterie"
)

// tick requests the progress of the watches that have been silent for the interval of notifications.
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

// A progressCheck is a request of the client for the progress of all watches of the stream.
type progressCheck struct {
	header *pb.ResponseHeader // at the time of the request
	open   int                // watches that have not reached its revision
}

// checkProgress answers with a single response as soon as every watch has reported all events up to now. It does not
// answer if there are no watches, or while one of them waits for a later revision. If a watch is behind, etcd does not
// answer at all; here the answer waits.
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

// progressed handles the report of the set that a watch has returned every event up to a revision.
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

// answered notes that one more watch has answered some requests, and sends the answers that are complete.
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
