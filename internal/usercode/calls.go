// SPDX-License-Identifier: Apache-2.0

// Package usercode stands between a node and the code of its user that it calls: Config.Network, Config.Metrics,
// Config.VerifyMember and the functions of Config.TLS. That code may block or panic: the node neither stalls nor
// ends. Package logqueue does the same for the handler of Config.Logger.
package usercode

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// Calls runs calls of the user's code, each on a goroutine of its own, so that a call that blocks delays its
// caller only until a context ends. The number of calls that are left behind is bounded.
type Calls struct {
	Name string // of the code, for errors

	left atomic.Int64
}

// maxLeft is the number of calls that may be left behind before further ones fail at once.
const maxLeft = 64

// Do runs fn and returns its error, or ctx's cause as soon as ctx ends: then fn continues alone, and must
// discard its result. A panic of fn becomes an error.
func (c *Calls) Do(ctx context.Context, fn func() error) error {
	if left := c.left.Load(); left >= maxLeft {
		return fmt.Errorf("coterie: %s: %d earlier calls have not returned", c.Name, left)
	}
	var over atomic.Bool // fn has returned, or its caller has left
	result := make(chan error, 1)
	go func() {
		err := errors.New("coterie: " + c.Name + " has ended its goroutine")
		defer func() {
			if !over.CompareAndSwap(false, true) {
				c.left.Add(-1)
			}
			result <- err
		}()
		err = c.Guard(fn)
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		if over.CompareAndSwap(false, true) {
			c.left.Add(1)
		}
		return context.Cause(ctx)
	}
}

// Guard runs fn on the caller's goroutine, and returns its error, or an error if it panics.
func (c *Calls) Guard(fn func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("coterie: %s has panicked: %v", c.Name, cause)
		}
	}()
	return fn()
}
