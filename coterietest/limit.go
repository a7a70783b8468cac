// SPDX-License-Identifier: Apache-2.0

package coterietest

import (
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// grace is the virtual time that a test has to end after it has reached its limit.
const grace = time.Hour

// bound fails the test when it has taken too much virtual time, and closes the nodes, so that calls that wait
// for them return. The caller must stop the returned timer.
func (c *Cluster) bound() *time.Timer {
	limit := c.opts.limit
	if limit <= 0 {
		limit = defaultTimeLimit
	}
	late := false
	bubble := bubbleOf(stacks(false))
	var timer *time.Timer
	timer = time.AfterFunc(limit, func() {
		waits := waiting(stacks(true), bubble)
		if late {
			panic(fmt.Sprintf("coterietest: the test has taken %v of virtual time, its limit (WithTimeLimit), and waits %v later, "+
				"with all nodes closed:\n\n%s", limit, grace, waits))
		}
		late = true
		c.t.Errorf("coterietest: the test has taken %v of virtual time, its limit (WithTimeLimit). It waits here:\n\n%s", limit, waits)
		timer.Reset(grace)
		for _, n := range c.Nodes() {
			_ = n.Close() // Stop reports the error at the end of the test
		}
	})
	return timer
}

// stacks returns the stack of this goroutine, or of all goroutines.
func stacks(all bool) string {
	for size := 1 << 16; ; size *= 4 {
		b := make([]byte, size)
		if n := runtime.Stack(b, all); n < size {
			return string(b[:n])
		}
	}
}

// bubbleOf returns the name of the bubble of the first goroutine in stacks.
func bubbleOf(stacks string) string {
	return regexp.MustCompile(`synctest bubble \d+`).FindString(stacks)
}

// waiting returns the stacks of the goroutines of a bubble that run code of a test.
func waiting(stacks, bubble string) string {
	var found []string
	for stack := range strings.SplitSeq(stacks, "\n\n") {
		if head, _, _ := strings.Cut(stack, "\n"); bubbleOf(head) == bubble && strings.Contains(stack, "_test.go:") {
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}
