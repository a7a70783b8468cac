// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"maps"
	"sync"
	"time"
)

// A throttle says which of the messages that come again and again the log is to have: nodes that do not
// get on try many times a second, strangers as they please, and raft warns each time.
type throttle struct {
	mu    sync.Mutex
	since time.Time // when told began
	told  map[string]bool
	// unsaid is how many were not told of.
	unsaid int
}

const (
	throttleInterval = 10 * time.Second // in which each subject is told of once
	throttleSubjects = 16               // how many subjects are told of in that time
)

// due reports whether a message on a subject is to be told, and how many were not since the last that
// was.
func (t *throttle) due(subject string) (unsaid int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); t.told == nil || now.Sub(t.since) >= throttleInterval {
		t.since, t.told = now, map[string]bool{}
	}
	if t.told[subject] || len(t.told) == throttleSubjects {
		t.unsaid++
		return 0, false
	}
	t.told[subject] = true
	unsaid, t.unsaid = t.unsaid, 0
	return unsaid, true
}

// A persistence tells trouble that goes on from trouble that passes by itself: an election, a restart of
// another node.
type persistence struct {
	mu   sync.Mutex
	seen map[string]spell
}

// A spell is the time between the first and the last message on a subject without a long gap.
type spell struct{ first, last time.Time }

// maxSpells bounds the subjects that a persistence knows; others do not count as going on.
const maxSpells = 256

// lasts notes a message on a subject, and reports whether it has come again and again for a whole
// interval of a throttle.
func (p *persistence) lasts(subject string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	s, known := p.seen[subject]
	if !known {
		maps.DeleteFunc(p.seen, func(_ string, s spell) bool { return now.Sub(s.last) >= throttleInterval })
		if len(p.seen) >= maxSpells {
			return false
		}
	}
	if now.Sub(s.last) >= throttleInterval {
		s.first = now
	}
	s.last = now
	if p.seen == nil {
		p.seen = map[string]spell{}
	}
	p.seen[subject] = s
	return now.Sub(s.first) >= throttleInterval
}
