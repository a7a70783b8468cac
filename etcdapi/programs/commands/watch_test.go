// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// put writes a key and its value, without etcdctl.
func (s *store) put(t testing.TB, key, value string) {
	_, err := s.client.Put(t.Context(), key, value)
	require.NoError(t, err)
}

// del deletes a key without etcdctl.
func (s *store) del(t testing.TB, key string) {
	_, err := s.client.Delete(t.Context(), key)
	require.NoError(t, err)
}

func TestWatch(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		first := []string{"watch", "/key1"}
		r := p.each(func(s *store) result { // without a revision: from a moment that the test does not know
			c := s.start(t, "", first...)
			require.Eventually(t, func() bool {
				s.put(t, "/key1", "value")
				return c.printed() != ""
			}, 20*time.Second, 20*time.Millisecond)
			c.interrupt(t)
			r := c.wait(t)
			require.Contains(t, r.stdout, "PUT\n/key1\nvalue\n")
			return result{r.stdout[:len("PUT\n/key1\nvalue\n")], r.stderr, r.code}
		})
		p.compare(first, r)
	})
}

func TestWatchFromRevision(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.same("put", "/key0", "old")
		p.same("put", "other", "old")
		// An etcd that catches up returns several revisions in one response, so each change waits for the last one.
		for format, texts := range map[string][2]string{
			"simple": {"PUT\n", "DELETE\n"}, "json": {`"mod_revision"`, `"type":1`}, "fields": {`"Type" : PUT`, `"Type" : DELETE`},
		} {
			p.during(func(s *store, c *process) {
				s.put(t, "/key1", "1")
				c.waitFor(t, texts[0], 1)
				s.put(t, "other", "1")
				s.put(t, "/key1", "2")
				c.waitFor(t, texts[0], 2)
				s.del(t, "/key1")
				c.waitFor(t, texts[1], 1)
			}, "watch", "/key", "--prefix", "--prev-kv", "--rev={next}", "--write-out="+format)
		}
		p.during(func(s *store, c *process) {
			s.put(t, "/key1", "1")
			s.put(t, "/key2", "2")
			c.waitFor(t, "/key2\n2\n", 1)
		}, "watch", "/key2", "/key3", "--rev={next}")
		p.during(func(_ *store, c *process) { c.waitFor(t, "old\n", 1) }, "watch", "/key0", "--rev=2")
		p.during(func(s *store, c *process) {
			s.put(t, "/key1", "1")
			c.waitFor(t, "\"1\"\n", 1)
		}, "watch", "/key1", "--rev={next}", "--", "sh", "-c", "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE")
		list := append([]string{"watch", "/key0", "--rev=2", "--", "{etcdctl}", "--endpoints={endpoint0}"}, p.stores[0].flags...)
		p.during(func(_ *store, c *process) { c.waitFor(t, ", false\n", p.members) }, append(list, "member", "list")...)
		p.during(func(s *store, c *process) {
			s.put(t, "/key1", "1")
			c.waitFor(t, `"mod_revision"`, 1)
		}, "watch", "/key1", "--rev={next}", "--hex", "--write-out=json")
		p.typing("nonsense\nwatch\nprogress\n").fails("watch", "-i")
		p.masking(`(progress notify: \d+\n)+`, "$1").interactive("watch /key0 --rev=2\n", func(c *process, input *os.File) {
			c.waitFor(t, "old\n", 1)
			require.Eventually(t, func() bool { // an etcd answers when the watch has caught up
				_, err := input.WriteString("progress\n")
				require.NoError(t, err)
				return strings.Contains(c.printed(), "progress notify: ")
			}, 20*time.Second, 50*time.Millisecond)
		}, "watch", "-i")
		p.same("compaction", "4")
		p.fails("watch", "/key0", "--rev=2")
		p.fails("watch", "/key0", "--rev=-1")
		p.fails("watch", "/key2", "/key1")
		p.fails("watch")
	})
}

// A watch that asks for notifications gets one when nothing has changed for a while.
func TestWatchProgress(t *testing.T) {
	t.Parallel()
	p := setup{members: 1, progress: 100 * time.Millisecond}.start(t)
	p.same("put", "k", "v")
	for i := range p.stores { // until the first one: their number depends on the time
		s := p.stores[i]
		c := s.start(t, "", "watch", "k", "--progress-notify")
		c.waitFor(t, "progress notify: 2\n", 1)
		c.interrupt(t)
		require.NotContains(t, c.wait(t).stdout, "PUT")
	}
}

// interactive runs a command with input that does not end on both, and interrupts it.
func (p *pair) interactive(input string, do func(c *process, input *os.File), args ...string) {
	p.Helper()
	p.compare(args, p.each(func(s *store) result {
		r, w, err := os.Pipe()
		require.NoError(p, err)
		defer w.Close()
		c := run(p, r, etcdctl, s.complete(p, args)...)
		r.Close()
		_, err = w.WriteString(input)
		require.NoError(p, err)
		do(c, w)
		c.interrupt(p)
		return c.wait(p)
	}))
}
