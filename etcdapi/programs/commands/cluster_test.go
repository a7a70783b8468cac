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
	t.Parallel()
	p := figures(start(t, 1, false))
	p.same("put", "k", "v")
	p.tabled("endpoint", "status")
	p.tabled("endpoint", "health")
	p.tabled("endpoint", "hashkv")
	p.tabled("endpoint", "hashkv", "--rev=1")
	p.tabled("endpoint", "status", "--cluster")
	p.tabled("endpoint", "health", "--cluster")
	p.fails("endpoint", "hashkv", "--rev=99")
	p.prints("Finished defragmenting etcd member[ENDPOINT0]. took TIME\n", "defrag")
	p.formatted("alarm", "list")
	p.formatted("alarm", "disarm")
	p.fails("downgrade", "validate", "3.5.0")
	p.fails("downgrade", "validate", "three")
	p.same("downgrade", "cancel")
	p.fails("endpoint", "status", "--endpoints=127.0.0.1:1", "--command-timeout=100ms", "--dial-timeout=100ms")
}

func TestMembers(t *testing.T) {
	t.Parallel()
	p := start(t, 1, false)
	p.tabled("member", "list")
	p.tabled("member", "list", "--consistency=s")
	p.fails("member", "add", "etcd4", "http://192.168.3.104:2380")
	p.fails("member", "add", "etcd4")
	p.fails("member", "add")
	p.fails("member", "add", "etcd4", "--peer-urls=192.168.3.104:2380")
	p.fails("member", "remove")
	p.fails("member", "remove", "xyz")
	p.fails("member", "remove", "7")
	p.fails("member", "update", "7", "--peer-urls=http://192.168.3.104:2380")
	p.fails("member", "update", "7")
	p.fails("member", "promote", "7")
	p.fails("member", "promote", "{member0}")
	p.fails("move-leader", "7")
	p.fails("move-leader")
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
	for _, s := range p.stores {
		s.values["follower"] = s.values["member0"]
		if status, err := s.client.Status(t.Context(), s.endpoints[0]); err == nil && fmt.Sprintf("%x", status.Leader) == s.values["member0"] {
			s.values["follower"] = s.values["member1"]
		}
	}
	p.masking(`MEMBER\d`, "MEMBER").fails("move-leader", "{follower}", "--endpoints={endpoint1}")
	p.masking(`MEMBER\d`, "MEMBER").same("move-leader", "{follower}", "--endpoints={all}")
}
