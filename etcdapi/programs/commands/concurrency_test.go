// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// sessions masks the leases that are parts of keys, and the values of the observer.
func sessions(p *pair) *pair {
	return p.masking(`(mutex|election)/[0-9a-f]+`, "$1/LEASE", `"Lease" : \d+`, `"Lease" : LEASE`, `"lease":\d+`, `"lease":LEASE`,
		`"key":"(bXV0ZXgv|ZWxlY3Rpb24v)[^"]*"`, `"key":"$1"`)
}

func TestLock(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p = sessions(p)
		for _, format := range formats {
			p.during(func(s *store, c *process) {
				if format == "table" {
					return
				}
				c.waitFor(t, "\n", 1)
				next := s.start(t, "", "lock", "mutex")
				first, err := s.client.Get(t.Context(), "mutex/")
				if err != nil || len(first.Kvs) > 0 {
					t.Error(first, err)
				}
				c.interrupt(t)
				next.waitFor(t, "mutex/", 1)
				next.interrupt(t)
				if r := next.wait(t); r.code != 0 {
					t.Error(r)
				}
			}, "lock", "mutex", "--write-out="+format)
		}
		r := p.same("lock", "mutex", "--ttl=5", "--", "sh", "-c", "echo $ETCD_LOCK_KEY $ETCD_LOCK_REV")
		require.Contains(t, r.stdout, "mutex/LEASE ")
		p.exits(7, "lock", "mutex", "--", "sh", "-c", "exit 7")
		p.fails("lock", "mutex", "/no/such/program")
		p.fails("lock")
		p.prints("", "get", "mutex", "--prefix")
	})
}

func TestElect(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p = sessions(p)
		p.during(func(s *store, c *process) {
			first := s.start(t, "", "elect", "election", "first")
			first.waitFor(t, "first\n", 1)
			c.waitFor(t, "first\n", 1)
			second := s.start(t, "", "elect", "election", "second")
			first.interrupt(t)
			second.waitFor(t, "second\n", 1)
			c.waitFor(t, "second\n", 1)
			for _, c := range []*process{first, second} {
				if c == second {
					c.interrupt(t)
				}
				if r := s.masked(c.wait(t), p.masks); r.code != 0 || r.stderr != "" {
					t.Error(r)
				}
			}
		}, "elect", "--listen", "election")
		p.fails("elect", "election")
		p.fails("elect")
		p.prints("", "get", "election", "--prefix")
	})
}
