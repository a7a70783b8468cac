// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// figures masks the sizes, log indexes and times of endpoints.
func figures(p *pair) *pair {
	return p.masking(
		`"(dbSize|dbSizeInUse|raftIndex|raftTerm|raftAppliedIndex|hash)":\d+`, `"$1":FIGURE`,
		`"(DBSize|DBSizeInUse|RaftIndex|RaftTerm|RaftAppliedIndex|Hash)" : \d+`, `"$1" : FIGURE`,
		`\b[\d.]+ [kMGT]?B\b`, "SIZE",
		`\b\d+%`, "PERCENTAGE",
		`((?:true|false), (?:true|false)), \d+, \d+, \d+,`, "$1, TERM, INDEX, INDEX,",
		`((?:true|false)│(?:true|false))│\d+│\d+│\d+│`, "$1│TERM│INDEX│INDEX│",
		`took = [^\s]+`, "took = TIME", `"took":"[^"]+"`, `"took":"TIME"`, `"Took" : "[^"]+"`, `"Took" : "TIME"`,
		`\b[\d.]+[µm]?s\b`, "TIME",
	)
}

func TestEndpoint(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p = figures(p)
		if p.members > 1 { // the stores differ in which member leads
			p = p.masking(`MEMBER\d`, "MEMBER")
		}
		p.same("put", "k", "v")
		p.tabled("endpoint", "status")
		p.tabled("endpoint", "health")
		p.tabled("endpoint", "hashkv")
		p.tabled("endpoint", "hashkv", "--rev=1")
		cluster := p.unordered().masking(`ENDPOINT\d|MEMBER\d|CLIENT\d`, "MEMBER", `"is_leader":(true|false)`, "", `, (true|false), (true|false), TERM`, ", LEADS, LEARNS, TERM")
		cluster.same("endpoint", "status", "--cluster")
		cluster.same("endpoint", "hashkv", "--cluster")
		cluster.same("endpoint", "health", "--cluster")
		if p.members == 1 {
			p.tabled("endpoint", "status", "--cluster")
			p.tabled("endpoint", "health", "--cluster")
		}
		p.fails("endpoint", "hashkv", "--rev=99")
		p.prints("Finished defragmenting etcd member[ENDPOINT0]. took TIME\n", "defrag")
		cluster.same("defrag", "--cluster")
		p.formatted("alarm", "list")
		p.formatted("alarm", "disarm")
		p.fails("downgrade", "validate", "3.5.0")
		p.fails("downgrade", "validate", "three")
		p.fails("downgrade", "validate")
		p.fails("downgrade", "enable", "3.4.0")
		p.fails("downgrade", "enable", "three")
		p.same("downgrade", "cancel")
		p.fails("endpoint", "status", "--endpoints=127.0.0.1:1", "--command-timeout=100ms", "--dial-timeout=100ms")
		p.fails("endpoint", "health", "--endpoints=127.0.0.1:1,{endpoint0}", "--command-timeout=1s", "--dial-timeout=100ms")
		p.fails("defrag", "--endpoints=127.0.0.1:1,{endpoint0}", "--command-timeout=100ms", "--dial-timeout=100ms")
	})
}

func TestMembers(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.tabled("member", "list")
		p.tabled("member", "list", "--consistency=s")
		p.fails("member", "list", "--consistency=x")
		p.fails("member", "add", "etcd4", "http://192.168.3.104:2380")
		p.fails("member", "add", "etcd4")
		p.fails("member", "add")
		p.fails("member", "add", "etcd4", "--peer-urls=192.168.3.104:2380")
		p.fails("member", "remove")
		p.fails("member", "remove", "xyz")
		p.fails("member", "remove", "7")
		p.fails("member", "update", "7", "--peer-urls=http://192.168.3.104:2380")
		p.fails("member", "update", "7")
		p.fails("member", "promote")
		p.fails("member", "promote", "7")
		p.fails("member", "promote", "{member0}")
		p.fails("move-leader", "7")
		p.fails("move-leader")
	})
}

func TestThreeMembers(t *testing.T) {
	t.Parallel()
	p := start(t, 3, false)
	for _, s := range p.stores {
		s.values["all"] = strings.Join(s.endpoints, ",")
	}
	p.tabled("member", "list")
	p.same("put", "k", "v", "--endpoints={all}")
	p.same("get", "k", "--endpoints={all}")
	q := figures(p).masking(`\bMEMBER\d`, "MEMBER")
	q.tabled("endpoint", "status", "--endpoints={all}")
	q.same("endpoint", "hashkv", "--endpoints={all}")
	r := q.unordered().same("endpoint", "health", "--endpoints={all}")
	require.Equal(t, 3, strings.Count(r.stdout, "is healthy: successfully committed proposal"))
	p.awaitGrowth()
	// The order of the members is that of their IDs.
	p = p.masking(`(etcd4=http://[\d.:]+),(.*)"`, `$2,$1"`)
	p.learn("added", `^Member *(\w+) added`, "member", "add", "etcd4", "--peer-urls=http://127.0.0.1:1", "--learner")
	p.unordered().same("member", "list")
	p.fails("member", "promote", "{added}")
	// With the same URLs alone, an etcd would give the same ID to both in the same second.
	p.fails("member", "add", "etcd5", "--peer-urls=http://127.0.0.1:1,http://127.0.0.1:8")
	p.same("member", "update", "{added}", "--peer-urls=http://127.0.0.1:2")
	p.unordered().same("member", "list", "--write-out=fields")
	p.unordered().same("member", "list", "--write-out=table")
	p.same("member", "remove", "{added}")
	p.tabled("member", "list")
	p.fails("member", "remove", "{added}")
	p.learn("voter", `^Member *(\w+) added`, "member", "add", "etcd4", "--peer-urls=http://127.0.0.1:3")
	p.same("member", "remove", "{voter}")
	p = p.masking(`MEMBER\d`, "MEMBER")
	p.chooseFollower()
	p.fails("move-leader", "{follower}", "--endpoints={endpoint1}")
	for _, format := range []string{"simple", "json"} {
		p.same("move-leader", "{follower}", "--endpoints={all}", "--write-out="+format)
		p.chooseFollower()
	}
}

// chooseFollower names the ID of a follower, for use in arguments.
func (p *pair) chooseFollower() {
	for _, s := range p.stores {
		s.values["follower"] = s.values["member0"]
		if status, err := s.client.Status(p.Context(), s.endpoints[0]); err == nil && fmt.Sprintf("%x", status.Leader) == s.values["member0"] {
			s.values["follower"] = s.values["member1"]
		}
	}
}
