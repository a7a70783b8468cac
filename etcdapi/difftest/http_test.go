// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A call is a request over HTTP.
type call struct {
	path, body string
	stream     bool // it does not end by itself
}

// calls has every path of the JSON interface, and the errors that it can give.
var calls = []call{
	{path: "kv/put", body: `{"key":"a","value":"dg==","prev_kv":true}`},
	{path: "kv/put", body: `{"key":"YQ==","value":"dg=="}`},
	{path: "kv/put", body: `{"key":"YQ==","value":"dw==","prev_kv":true}`},
	{path: "kv/put", body: `{"value":"dw=="}`},
	{path: "kv/put", body: `{"key":"YQ==","lease":"77"}`},
	{path: "kv/put", body: `not JSON`},
	{path: "kv/put"},
	{path: "kv/put", body: `{"key":"Yg==","value":"dg==","unknown_field":1}`},
	{path: "kv/range", body: `{"key":"AA==","range_end":"AA==","sort_order":"DESCEND","limit":"1"}`},
	{path: "kv/range", body: `{"key":"AA==","range_end":"AA==","sort_order":2,"count_only":true}`},
	{path: "kv/range", body: `{"key":"YQ==","revision":99}`},
	{path: "kv/range", body: `{"key":"bm9uZQ=="}`},
	{path: "kv/txn", body: `{"compare":[{"target":"VALUE","key":"YQ==","value":"dw=="}],"success":[{"requestRange":{"key":"YQ=="}}],` +
		`"failure":[{"request_delete_range":{"key":"YQ=="}}]}`},
	{path: "kv/deleterange", body: `{"key":"Yg==","prev_kv":true}`},
	{path: "kv/compaction", body: `{"revision":"3","physical":true}`},
	{path: "kv/compaction", body: `{"revision":"2"}`},
	{path: "kv/put", body: `{"key":"YQ==","value":"eA=="}`},
	{path: "watch", body: `{"create_request":{"key":"YQ==","start_revision":"6","prev_kv":true,"progress_notify":true}}`, stream: true},
	{path: "watch", body: `{"create_request":{"key":"YQ==","start_revision":"1"}}`, stream: true},
	{path: "watch", body: `{"create_request":{"key":"Yg==","range_end":"YQ=="}}`, stream: true},
	{path: "lease/grant", body: `{"TTL":"1000","ID":"77"}`},
	{path: "lease/grant", body: `{"TTL":"1000","ID":"77"}`},
	{path: "kv/put", body: `{"key":"bA==","lease":"77"}`},
	{path: "lease/keepalive", body: `{"ID":"77"}`},
	{path: "lease/keepalive", body: `{"ID":"78"}`},
	{path: "lease/timetolive", body: `{"ID":"77","keys":true}`},
	{path: "kv/lease/timetolive", body: `{"ID":"78"}`},
	{path: "lease/leases"},
	{path: "lease/leases", body: `{}`},
	{path: "kv/lease/leases", body: `{}`},
	{path: "lock/lock", body: `{"name":"bG9jaw==","lease":"77"}`},
	{path: "lock/unlock", body: `{"key":"bG9jay80ZA=="}`},
	{path: "election/leader", body: `{"name":"ZQ=="}`},
	{path: "election/campaign", body: `{"name":"ZQ==","lease":"77","value":"dg=="}`},
	{path: "election/leader", body: `{"name":"ZQ=="}`},
	{path: "election/proclaim", body: `{"leader":{"name":"ZQ==","key":"ZS80ZA==","rev":"9999","lease":"77"},"value":"dw=="}`},
	{path: "election/proclaim", body: `{}`},
	{path: "election/observe", body: `{"name":"ZQ=="}`, stream: true},
	{path: "election/resign", body: `{"leader":{"name":"ZQ==","key":"ZS80ZA==","rev":"9999","lease":"77"}}`},
	{path: "lease/revoke", body: `{"ID":"77"}`},
	{path: "kv/lease/revoke", body: `{"ID":"77"}`},
	{path: "cluster/member/list", body: `{}`},
	{path: "cluster/member/add", body: `{"peerURLs":["not a URL"]}`},
	{path: "cluster/member/remove", body: `{"ID":"1"}`},
	{path: "cluster/member/update", body: `{"ID":"1","peerURLs":["http://127.0.0.1:1"]}`},
	{path: "cluster/member/promote", body: `{"ID":"1"}`},
	{path: "maintenance/alarm", body: `{}`},
	{path: "maintenance/status", body: `{}`},
	{path: "maintenance/defragment", body: `{}`},
	{path: "maintenance/hash", body: `{}`},
	{path: "maintenance/hashkv", body: `{"revision":"1000"}`},
	{path: "maintenance/snapshot", body: `{}`},
	{path: "maintenance/transfer-leadership", body: `{"targetID":"1"}`},
	{path: "maintenance/downgrade", body: `{"action":"VALIDATE","version":"x"}`},
	{path: "auth/status", body: `{}`},
	{path: "auth/enable", body: `{}`},
	{path: "auth/disable", body: `{}`},
	{path: "auth/authenticate", body: `{"name":"root","password":"p"}`},
	{path: "auth/user/add", body: `{}`},
	{path: "auth/user/get", body: `{"name":"u"}`},
	{path: "auth/user/list", body: `{}`},
	{path: "auth/user/delete", body: `{"name":"u"}`},
	{path: "auth/user/changepw", body: `{"name":"u","password":"p"}`},
	{path: "auth/user/grant", body: `{"user":"u","role":"r"}`},
	{path: "auth/user/revoke", body: `{"name":"u","role":"r"}`},
	{path: "auth/role/add", body: `{}`},
	{path: "auth/role/get", body: `{"role":"r"}`},
	{path: "auth/role/list", body: `{}`},
	{path: "auth/role/delete", body: `{"role":"r"}`},
	{path: "auth/role/grant", body: `{"name":"r"}`},
	{path: "auth/role/revoke", body: `{"role":"r","key":"YQ=="}`},
	{path: "kv/rangestream", body: `{}`},
	{path: "nothing", body: `{}`},
}

// TestCallsHaveEveryPath compares calls with the paths in the descriptions of etcd's services.
func TestCallsHaveEveryPath(t *testing.T) {
	called := map[string]bool{}
	for _, c := range calls {
		called["/v3/"+c.path] = true
	}
	paths := 0
	for _, file := range []protoreflect.FileDescriptor{pb.File_rpc_proto, v3lockpb.File_v3lock_proto, v3electionpb.File_v3election_proto} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				rule, ok := proto.GetExtension(methods.Get(j).Options(), annotations.E_Http).(*annotations.HttpRule)
				if !ok || rule == nil {
					continue // RangeStream
				}
				for _, r := range append(rule.AdditionalBindings, rule) {
					assert.True(t, called[r.GetPost()], "%s of %s", r.GetPost(), methods.Get(j).FullName())
					paths++
				}
			}
		}
	}
	require.GreaterOrEqual(t, paths, 51)
}

// TestSameAnswersToCurl sends every path of the JSON interface to both servers with curl.
func TestSameAnswersToCurl(t *testing.T) {
	needCurl(t)
	etcd, node := endpoints(t)
	for _, c := range calls {
		args := []string{"-d", c.body}
		if c.stream {
			args = append(args, "-N", "--max-time", "0.3")
		}
		for _, prefix := range []string{"/v3/", "/v3beta/"} {
			if prefix == "/v3beta/" && c.path != "maintenance/alarm" {
				continue
			}
			want, got := curl(t, etcd, prefix+c.path, args...), curl(t, node, prefix+c.path, args...)
			assert.Equal(t, want, got, "%s %s", prefix+c.path, c.body)
		}
	}
}

// TestSameAnswersOfProbes compares the paths that are not JSON, and the methods of all kinds of paths.
func TestSameAnswersOfProbes(t *testing.T) {
	needCurl(t)
	etcd, node := endpoints(t)
	for _, path := range []string{
		"/health", "/health?serializable=true", "/health?exclude=NOSPACE&exclude=CORRUPT",
		"/livez", "/livez?verbose", "/livez?exclude=serializable_read&verbose", "/livez/serializable_read", "/livez/none",
		"/readyz", "/readyz?verbose", "/readyz?exclude=linearizable_read&verbose", "/readyz?exclude=none",
		"/readyz/data_corruption", "/readyz/serializable_read", "/readyz/linearizable_read?verbose", "/readyz/non_learner",
		"/version", "/nothing", "/",
	} {
		assert.Equal(t, curl(t, etcd, path), curl(t, node, path), path)
		assert.Equal(t, curl(t, etcd, path, "-X", "POST"), curl(t, node, path, "-X", "POST"), "POST %s", path)
	}
	require.Equal(t, curl(t, etcd, "/v3/kv/range"), curl(t, node, "/v3/kv/range"), "GET of a path of the JSON interface")
}

func needCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl")
	}
}

// curl returns the status, the kind and the body of an answer, without the values that are not comparable.
func curl(t *testing.T, e *endpoint, path string, args ...string) string {
	args = append([]string{"-s", "-w", "\n%{http_code} %{content_type} %header{allow}", "http://" + e.conn.Target() + path}, args...)
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "curl", args...)
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		exit, ok := err.(*exec.ExitError)
		require.True(t, ok && exit.ExitCode() == 28, "curl %v: %v", args, err) // 28: --max-time has passed
	}
	lines := strings.Split(out.String(), "\n")
	for i, line := range lines {
		lines[i] = comparable(line)
	}
	if len(lines) > 1 && strings.HasPrefix(lines[0], "[") {
		slices.Sort(lines) // etcd's checks have no order
	}
	return strings.Join(lines, "\n")
}

// dropped are the fields of JSON that always differ, or that rows of docs/etcd-parity.md explain.
var dropped = regexp.MustCompile(`^(cluster_id|member_id|raft_term|ID|name|peerURLs|clientURLs|hash|dbSize|dbSizeInUse|dbSizeQuota|leader|` +
	`raftIndex|raftAppliedIndex|raftTerm|blob|remaining_bytes)$`)

// comparable returns a line without those values, with its keys in order.
func comparable(line string) string {
	var v map[string]any
	if json.Unmarshal([]byte(line), &v) != nil {
		return line
	}
	text, err := json.Marshal(withoutDropped(v))
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

func withoutDropped(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			if dropped.MatchString(k) {
				delete(v, k)
			} else {
				v[k] = withoutDropped(v[k])
			}
		}
	case []any:
		for i := range v {
			v[i] = withoutDropped(v[i])
		}
	}
	return v
}
