// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Flags of get and del that the other tests leave out.
func TestFlagsOfRanges(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		for _, kv := range []string{"c 1", "a 3", "b 2", "a 4", "d 0"} {
			p.same(append([]string{"put"}, strings.Fields(kv)...)...)
		}
		for _, target := range []string{"CREATE", "KEY", "MODIFY", "VALUE", "VERSION"} {
			p.same("get", "", "--from-key", "--sort-by="+target)
			p.same("get", "", "--prefix", "--sort-by="+target, "--order=ASCEND", "--limit=3")
		}
		p.same("get", "", "--prefix", "--sort-by=MODIFY", "--order=DESCEND", "--write-out=json")
		p.same("get", "", "--prefix", "--min-mod-rev=3", "--max-create-rev=4")
		p.formatted("get", "a", "--hex")
		p.formatted("get", "", "--prefix", "--stream")
		p.formatted("get", "a", "c", "--stream", "--limit=1", "--rev=4")
		p.same("get", "a", "c", "--keys-only", "--stream")
		p.same("get", "a", "--consistency=l")
		p.fails("get", "a", "--consistency=x")
		p.fails("get", "a", "--sort-by=SIZE")
		p.fails("get", "a", "--order=UP")
		p.fails("get", "a", "--prefix", "--from-key")
		p.fails("get", "a", "--keys-only", "--count-only")
		p.fails("get", "a", "b", "--prefix")
		p.same("get", "a", "b", "c")
		p.fails("get", "a", "--print-value-only", "--write-out=json")
		p.fails("get", "", "--prefix", "--sort-by=VALUE", "--order=ASCEND", "--stream")
		p.fails("get", "", "--prefix", "--min-mod-rev=3", "--stream")

		p.prints("1\n", "del", "a", "b", "--range")
		p.same("del", "b", "c") // etcdctl waits for two seconds
		p.fails("del", "a", "--prefix", "--from-key")
		p.fails("del", "a", "b", "--prefix", "--range")
		p.fails("del")
		p.prints("2\n", "del", "", "--prefix")
	})
}

// Flags of all commands, as flags and as variables of the environment.
func TestGlobalFlags(t *testing.T) {
	t.Parallel()
	p := start(t, 1, false)
	p.same("put", "k", strings.Repeat("v", 2000))
	p.prints("OK\n", "put", "k2", "v", "--endpoints=127.0.0.1:1,{endpoint0}")
	p.same("get", "k2", "--keepalive-time=1s", "--keepalive-timeout=1s", "--dial-timeout=10s", "--insecure-transport=true")
	p.masking(`\(\d+ vs`, "(SIZE vs").fails("get", "k", "--max-recv-bytes=1000") // the size of an ID varies
	p.fails("get", "k2", "--write-out=yaml")
	p.fails("get", "k2", "--no-such-flag")
	p.fails("get", "k2", "--command-timeout=1ns")
	p.fails("get", "k2", "--cert=")
	p.fails("get", "k2", "--cert=/no/such/file", "--key=/no/such/file")
	p.fails("get", "k2", "--cacert=/no/such/file")
	p.refused("authentication handshake failed", "get", "k2", "--insecure-transport=false", "--insecure-skip-tls-verify")
	p.compare([]string{"get", "k2", "--debug"}, p.each(func(s *store) result {
		r := s.start(t, "", "get", "k2", "--debug").wait(t)
		require.NotEmpty(t, r.stderr)
		return result{stdout: r.stdout, code: r.code} // the program writes the log
	}))
	p.compare([]string{"environment"}, p.each(func(s *store) result {
		c := prepare(t, nil, etcdctl, "get", "k2")
		c.cmd.Env = append(c.cmd.Environ(), "ETCDCTL_API=3", "ETCDCTL_ENDPOINTS="+s.endpoints[0], "ETCDCTL_WRITE_OUT=fields")
		c.begin(t)
		return c.wait(t)
	}))
}

// The programs print the versions of etcd for which the protocol is.
func TestVersionAndHelp(t *testing.T) {
	t.Parallel()
	p := start(t, 1, false)
	p.prints("etcdctl version: 3.7.3\nAPI version: 3.7\n", "version")
	p.same("--help")
	p.same("help", "get")
	p.same("options")
	p.same("put", "--help")
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		p.same("completion", shell)
	}
	p.fails("completion", "none")
	p.fails("no-such-command")
}
