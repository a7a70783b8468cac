// SPDX-License-Identifier: Apache-2.0

// Package throttle decides which log lines about recurring events are written. Nodes that cannot reach each
// other try many times a second, and raft warns each time.
package throttle

import (
	"maps"
	"sync"
	"time"
)

const (
	// Interval is the time in which a Throttle allows one line on each subject, and after which Trouble
	// counts as lasting.
	Interval = 10 * time.Second

	maxSubjects = 16  // that a Throttle allows lines on in one Interval
	maxTroubles = 256 // that a Trouble knows at once
)

// A Throttle allows one line on each subject in an Interval. The zero value is ready to use, and its methods
// may be called concurrently.
type Throttle struct {
	mu      sync.Mutex
	since   time.Time // the begin of the current interval
	allowed map[string]bool
	left    int // lines that were left out since the last one that was allowed
}

// Allow reports whether a line on a subject is to be written, and how many lines were left out since the last
// one that was.
func (t *Throttle) Allow(subject string) (leftOut int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); t.allowed == nil || now.Sub(t.since) >= Interval {
		t.since, t.allowed = now, map[string]bool{}
	}
	if t.allowed[subject] || len(t.allowed) == maxSubjects {
		t.left++
		return 0, false
	}
	t.allowed[subject] = true
	leftOut, t.left = t.left, 0
	return leftOut, true
}

// A Trouble distinguishes trouble that lasts from trouble that passes by itself, as an election or a restart
// of another node does. The zero value is ready to use, and its methods may be called concurrently.
type Trouble struct {
	mu   sync.Mutex
	seen map[string]spell
}

// A spell is the time between the first and the last line on a subject without a gap of an Interval.
type spell struct{ first, last time.Time }

// Lasts records a line on a subject, and reports whether lines on it have recurred for an Interval. A subject
// that exceeds the bound of subjects does not last.
func (t *Trouble) Lasts(subject string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	s, known := t.seen[subject]
	if !known {
		maps.DeleteFunc(t.seen, func(_ string, s spell) bool { return now.Sub(s.last) >= Interval })
		if len(t.seen) >= maxTroubles {
			return false
		}
	}
	if now.Sub(s.last) >= Interval {
		s.first = now
	}
	s.last = now
	if t.seen == nil {
		t.seen = map[string]spell{}
	}
	t.seen[subject] = s
	return now.Sub(s.first) >= Interval
}
