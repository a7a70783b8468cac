// SPDX-License-Identifier: Apache-2.0

package commands

import "testing"

func TestLease(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.same("lease", "list")
		p.learn("lease1", `^lease (\S+) granted with TTL\(600s\)\n$`, "lease", "grant", "600")
		p.prints("OK\n", "put", "key", "alive value", "--lease={lease1}")
		p.formatted("get", "key")
		p.formatted("put", "key", "--ignore-value", "--lease={lease1}")
		p.formatted("put", "key", "value", "--ignore-lease", "--prev-kv")
		p.formatted("lease", "list")
		p = p.masking(`remaining\(\d+s\)`, "remaining(TTL)", `"ttl":\d+`, `"ttl":TTL`, `"TTL" : \d+`, `"TTL" : TTL`)
		p.formatted("lease", "timetolive", "{lease1}")
		p.formatted("lease", "timetolive", "{lease1}", "--keys")
		p.formatted("lease", "keep-alive", "{lease1}", "--once")
		p.during(func(_ *store, c *process) { c.waitFor(t, "keepalived with TTL(600)", 1) }, "lease", "keep-alive", "{lease1}")
		p.same("lease", "revoke", "{lease1}")
		p.prints("", "get", "key")
		p.formatted("lease", "timetolive", "{lease1}")
		p.fails("lease", "revoke", "{lease1}")
		p.same("lease", "keep-alive", "{lease1}")
		p.fails("lease", "keep-alive", "{lease1}", "--once")
		p.learn("lease2", `"ID":(\d+)`, "--write-out=json", "lease", "grant", "60")
		p.learn("lease3", `"ID" : (\d+)`, "--write-out=fields", "lease", "grant", "60")
		p.unordered().same("lease", "list")
		p.fails("lease", "grant", "9000000001")
		p.fails("lease", "grant", "soon")
		p.fails("lease", "grant")
		p.fails("lease", "revoke", "xyz")
	})
}
