// SPDX-License-Identifier: Apache-2.0

package coterie

import (
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
