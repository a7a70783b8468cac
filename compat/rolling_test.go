// SPDX-License-Identifier: Apache-2.0

// Package compat tests this version of coterie against the files and messages of earlier ones.
package compat

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// first is the commit that introduced format 1, the oldest format that stays readable.
const first = "06b7df9"

// A load writes to a cluster continuously, and remembers the acknowledged writes.
type load struct {
	mu    sync.Mutex
	nodes map[string]*process
	acked map[string]bool
	wg    sync.WaitGroup
	end   context.CancelFunc
}

func begin(t *testing.T, nodes map[string]*process) *load {
	ctx, end := context.WithCancel(t.Context())
	l := &load{nodes: nodes, acked: map[string]bool{}, end: end}
	for w, name := range []string{"a", "b", "c", "a", "b", "c"} {
		l.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("%d/%d", w, i)
				if _, err := l.node(name).do(ctx, "put "+key+" "+key); err != nil {
					continue // the process is stopped, or the outcome is unknown
				}
				l.mu.Lock()
				l.acked[key] = true
				l.mu.Unlock()
			}
		})
	}
	return l
}

func (l *load) node(name string) *process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[name]
}

func (l *load) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// A cluster is upgraded and downgraded node by node while clients write to it.
func TestClusterRollsUpAndDown(t *testing.T) {
	if testing.Short() {
		t.Skip("builds an earlier version and runs processes")
	}
	requireHistory(t, first)
	old, now := earlier(t, first), current(t)
	all := sites(t, t.TempDir(), func(addr string) string { return addr })
	nodes := map[string]*process{}
	for _, s := range all {
		nodes[s.name] = old.start(t, s)
	}
	for _, s := range all {
		nodes[s.name].must(t, "ready")
	}
	l := begin(t, nodes)
	for _, next := range []program{now, old, now} {
		for _, s := range all {
			begin := time.Now()
			l.node(s.name).stop(t)
			stopped := time.Since(begin)
			p := next.start(t, s)
			l.mu.Lock()
			nodes[s.name] = p
			l.mu.Unlock()
			p.must(t, "ready")
			ready := time.Since(begin)
			for before := l.acknowledged(); l.acknowledged() < before+100; { // with two versions running
				p.must(t, "put between v")
			}
			t.Logf("%s: stopped after %v, ready after %v, %d writes after %v", s.name, stopped, ready, l.acknowledged(), time.Since(begin))
		}
	}
	l.end()
	l.wg.Wait()
	t.Log(len(l.acked), "writes were acknowledged")
	var reads sync.WaitGroup
	for key := range l.acked {
		reads.Go(func() {
			value, err := nodes["b"].do(t.Context(), "get "+key)
			assert.NoError(t, err)
			assert.Equal(t, "value "+key, value)
		})
	}
	reads.Wait()
	// Metadata went on record while nodes of both versions led. All replicas agree on it in the end.
	for _, s := range all {
		assert.Eventually(t, func() bool {
			answer := nodes[s.name].must(t, "members")
			return strings.Contains(answer, "a:zone-of-a") && strings.Contains(answer, "b:zone-of-b") && strings.Contains(answer, "c:zone-of-c")
		}, 20*time.Second, 100*time.Millisecond, s.name)
	}
	for _, s := range all {
		nodes[s.name].stop(t)
	}
}
