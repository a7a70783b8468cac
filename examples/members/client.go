// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// A client writes one key after the other, in turn through the instances that are in rotation, as if there
// were a load balancer. It never repeats a call: the first call that fails ends it.
//
// mu guards rotation, answered, slowest and fault.
type client struct {
	mu       sync.Mutex // held during each call
	rotation []*instance
	answered int           // calls since the client began
	slowest  time.Duration // of the calls since the last report
	fault    error
	quit     chan struct{} // closed to end it
	ended    chan struct{} // closed when it has ended
}

func newClient() *client {
	return &client{quit: make(chan struct{}), ended: make(chan struct{})}
}

// keys begins each of the client's keys.
const keys = "written-"

// add puts an instance in rotation.
func (c *client) add(i *instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rotation = append(c.rotation, i)
}

// remove takes an instance out of rotation, and returns when it has no call under way.
func (c *client) remove(i *instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rotation = slices.DeleteFunc(c.rotation, func(other *instance) bool { return other == i })
}

// run writes until stop is called or a call fails.
func (c *client) run(ctx context.Context) {
	defer close(c.ended)
	for pace := time.Tick(2 * time.Millisecond); ; {
		select {
		case <-pace:
		case <-c.quit:
			return
		}
		if c.write(ctx) != nil {
			return
		}
	}
}

// write writes the next key.
func (c *client) write(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	to, key := c.rotation[c.answered%len(c.rotation)], fmt.Sprintf("%s%06d", keys, c.answered)
	begin := time.Now()
	if _, err := ask(ctx, to, http.MethodPut, "/keys/"+key, strings.NewReader("x")); err != nil {
		c.fault = fmt.Errorf("a client's call failed: %w", err)
		return c.fault
	}
	c.answered++
	c.slowest = max(c.slowest, time.Since(begin))
	return nil
}

// report returns the number of answered calls, and the time of the slowest since the last report. If a call
// failed, it returns its error.
func (c *client) report() (answered int, slowest time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slowest, c.slowest = c.slowest, 0
	return c.answered, slowest.Round(time.Millisecond), c.fault
}

// stop ends the client. It returns the number of answered calls, or the error of the call that failed.
func (c *client) stop() (answered int, err error) {
	close(c.quit)
	<-c.ended
	answered, _, err = c.report()
	return answered, err
}
