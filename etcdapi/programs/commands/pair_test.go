// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// missingFormat is the exit code of a command that has no output in the format.
const missingFormat = 4

// formats are the values of --write-out, except protobuf.
var formats = []string{"simple", "json", "fields", "table"}

// A pair runs commands on both stores, and compares the outcomes.
type pair struct {
	testing.TB
	members int
	stores  [2]*store // etcd, coterie
	masks   []mask    // in addition
	stdin   string    // of the next commands
	sorted  bool      // compare the lines of the output in any order
}

// pairs runs a test on stores of one member, and, if it is to be long, on those of three members and with TLS.
func pairs(t *testing.T, test func(t *testing.T, p *pair)) {
	run := func(name string, members int, secure bool) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t, members, secure))
		})
	}
	run("one member", 1, false)
	if *long {
		run("one member with TLS", 1, true)
		run("three members", 3, false)
		run("three members with TLS", 3, true)
	}
}

// start starts both stores, for one test.
func start(t testing.TB, members int, secure bool) *pair {
	t.Helper()
	u := setup{members: members}
	if secure {
		u.security = certificate(t, "127.0.0.1")
	}
	return u.start(t)
}

// start starts both stores, for one test.
func (u setup) start(t testing.TB) *pair {
	t.Helper()
	p := &pair{TB: t, members: u.members, stores: [2]*store{u.startEtcd(t), u.startNodes(t)}}
	if u.members > 1 { // the stores differ in which member leads
		p = p.masking(`("?(?:member_id|leader|MemberID|Leader)"?(?::| : ))MEMBER\d`, "${1}MEMBER")
	}
	return p
}

// masking returns the pair with additional masks: patterns, each with a replacement.
func (p *pair) masking(pairs ...string) *pair {
	q := *p
	q.masks = append(append([]mask(nil), p.masks...), masks(pairs...)...)
	return &q
}

// typing returns the pair with input for its commands.
func (p *pair) typing(stdin string) *pair {
	q := *p
	q.stdin = stdin
	return &q
}

// unordered returns the pair with commands that may print their lines in any order.
func (p *pair) unordered() *pair {
	q := *p
	q.sorted = true
	return &q
}

// each calls do with both stores at the same time.
func (p *pair) each(do func(s *store) result) (results [2]result) {
	var both sync.WaitGroup
	for i, s := range p.stores {
		both.Go(func() { results[i] = do(s) })
	}
	both.Wait()
	return results
}

// compare fails the test if the outcomes differ. It returns the masked one of etcd.
func (p *pair) compare(args []string, got [2]result) result {
	p.Helper()
	etcd, node := p.stores[0].masked(got[0], p.masks), p.stores[1].masked(got[1], p.masks)
	if p.sorted {
		etcd.stdout, node.stdout = sortLines(etcd.stdout), sortLines(node.stdout)
	}
	if etcd != node {
		p.Errorf("etcdctl %q\n--- etcd: %v\n--- coterie: %v", args, etcd, node)
	}
	return etcd
}

func sortLines(text string) string {
	return strings.Join(slices.Sorted(strings.Lines(text)), "")
}

// with returns the pair with other flags of every command, instead of those for the certificate of its clients.
func (p *pair) with(flags ...string) *pair {
	q := *p
	for i, s := range p.stores {
		other := *s
		other.flags = flags
		q.stores[i] = &other
	}
	return &q
}

// alike runs a command, which may fail, on both.
func (p *pair) alike(args ...string) result {
	p.Helper()
	return p.compare(args, p.each(func(s *store) result { return s.start(p, p.stdin, args...).wait(p) }))
}

// exits runs a command on both, and requires that it ends with a code.
func (p *pair) exits(code int, args ...string) result {
	p.Helper()
	r := p.alike(args...)
	if r.code != code {
		p.Errorf("etcdctl %q does not end with %d: %v", args, code, r)
	}
	return r
}

// fails runs a command that fails on both, in the same way.
func (p *pair) fails(args ...string) {
	p.Helper()
	r := p.alike(args...)
	if r.code == 0 || strings.Contains(r.stderr, "panic:") {
		p.Errorf("etcdctl %q does not fail, or panics: %v", args, r)
	}
}

// same runs a command that succeeds on both.
func (p *pair) same(args ...string) result {
	p.Helper()
	return p.exits(0, args...)
}

// prints runs a command that succeeds on both, and prints a text.
func (p *pair) prints(stdout string, args ...string) {
	p.Helper()
	require.Equal(p, stdout, p.same(args...).stdout)
}

// formatted runs a command once in each format. Every command has simple and JSON; some lack others.
func (p *pair) formatted(args ...string) {
	p.Helper()
	for _, format := range formats {
		full := append([]string{"--write-out=" + format}, args...)
		r := p.alike(full...)
		if r.code != 0 {
			require.Equal(p, missingFormat, r.code, "etcdctl %q: %v", full, r)
			require.NotContains(p, formats[:2], format)
		}
	}
	p.encoded(args...)
}

// tabled runs a command once in each format. It may only lack the format for programs.
func (p *pair) tabled(args ...string) {
	p.Helper()
	for _, format := range formats {
		p.same(append([]string{"--write-out=" + format}, args...)...)
	}
	p.encoded(args...)
}

// during runs a command on both, calls do while it runs, and interrupts it.
func (p *pair) during(do func(s *store, c *process), args ...string) result {
	p.Helper()
	return p.compare(args, p.each(func(s *store) result {
		c := s.start(p, p.stdin, args...)
		do(s, c)
		c.interrupt(p)
		return c.wait(p)
	}))
}

// learn runs a command, and names an ID of the output: the first group of a pattern. Only the format tells the base: one
// hexadecimal ID of two thousand has no letter.
func (p *pair) learn(name, pattern string, args ...string) {
	p.Helper()
	find := regexp.MustCompile(pattern)
	base := 16
	if slices.Contains(args, "--write-out=json") || slices.Contains(args, "--write-out=fields") {
		base = 10
	}
	p.compare(args, p.each(func(s *store) result {
		r := s.start(p, p.stdin, args...).wait(p)
		if m := find.FindStringSubmatch(r.stdout); m != nil {
			s.remember(p, name, m[1], base)
		} else {
			p.Errorf("etcdctl %q on %s: %v", args, s.name, r)
		}
		return r
	}))
}
