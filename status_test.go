// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"encoding/json"
	"math"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func TestStatusIsTextInJSON(t *testing.T) {
	s := coterie.Status{
		ID: 0xa, Name: "a", Addr: "a:1", ClusterID: math.MaxUint64, Role: coterie.RoleLeader, Leader: 0xa,
		Leaderless: 1500 * time.Millisecond, Term: 2, Revision: 3, CompactRevision: -1, Committed: 4, Applied: 5, Durable: 6,
		LastContact: -1, Voters: 3, VotersReachable: 2, DiskRefused: time.Minute, DiskError: syscall.ENOSPC, DiskStalled: time.Second,
		Keys: 7, Leases: 8, Watchers: 9, Bytes: 10, QuotaBytes: 11, Err: coterie.ErrCorrupt,
	}
	b, err := json.Marshal(s)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"id": "000000000000000a", "name": "a", "addr": "a:1", "cluster": "ffffffffffffffff", "role": "leader",
		"leader": "000000000000000a", "leaderless": "1.5s", "term": 2, "revision": 3, "compactRevision": -1, "committed": 4,
		"applied": 5, "durable": 6, "lastContact": "-1ns", "voters": 3, "votersReachable": 2, "diskRefused": "1m0s",
		"diskError": "no space left on device", "diskStalled": "1s", "keys": 7, "leases": 8, "watchers": 9, "bytes": 10,
		"quotaBytes": 11, "err": "coterie: corrupt data"
	}`, string(b))
	var read coterie.Status
	require.NoError(t, json.Unmarshal(b, &read))
	require.EqualError(t, read.DiskError, s.DiskError.Error())
	require.EqualError(t, read.Err, s.Err.Error())
	read.DiskError, read.Err = s.DiskError, s.Err
	require.Equal(t, s, read)

	s.DiskError, s.Err = nil, nil
	b, err = json.Marshal(&s)
	require.NoError(t, err)
	require.NotContains(t, string(b), "rr", "an error that there is not")
	read = coterie.Status{}
	require.NoError(t, json.Unmarshal(b, &read))
	require.Equal(t, s, read)
}

func TestResponsesHaveHexIDsInJSON(t *testing.T) {
	header := coterie.Header{ClusterID: 1, MemberID: 2, Revision: 3, Term: 4}
	kv := coterie.KeyValue{Key: "k", Value: "v", CreateRevision: 2, ModRevision: 3, Version: 2, Lease: -7}
	for text, response := range map[string]any{
		`{"cluster":"0000000000000001","member":"0000000000000002","revision":3,"term":4,"kvs":[{"key":"k","value":"v",
			"createRevision":2,"modRevision":3,"version":2,"lease":"fffffffffffffff9"}],"count":1,"more":false}`: &coterie.GetResponse{
			Header: header, KVs: []coterie.KeyValue{kv}, Count: 1,
		},
		`{"cluster":"0000000000000001","member":"0000000000000002","revision":3,"term":4,"events":[{"type":"DELETE","kv":{"key":"k",
			"value":"","createRevision":0,"modRevision":3,"version":0,"lease":"0000000000000000"}}]}`: &coterie.WatchResponse{
			Header: header, Events: []coterie.Event{{Type: coterie.EventDelete, KV: coterie.KeyValue{Key: "k", ModRevision: 3}}},
		},
		`{"cluster":"0000000000000001","member":"0000000000000002","revision":3,"term":4,"leases":["0000000000000007"]}`: &coterie.LeasesResponse{
			Header: header, Leases: []coterie.LeaseID{7},
		},
	} {
		b, err := json.Marshal(response)
		require.NoError(t, err)
		require.JSONEq(t, text, string(b))
		read := reflect.New(reflect.TypeOf(response).Elem()).Interface()
		require.NoError(t, json.Unmarshal(b, read))
		require.Equal(t, response, read)
	}
	b, err := json.Marshal(coterie.WatchResult{Err: coterie.ErrNoLeader})
	require.NoError(t, err)
	require.Contains(t, string(b), `"err":"coterie: no leader"`)
	require.Error(t, new(coterie.EventType).UnmarshalText([]byte("put")))
}

func TestRoleIsTextInJSON(t *testing.T) {
	for role, text := range map[coterie.Role]string{
		coterie.RoleFollower: `"follower"`, coterie.RoleCandidate: `"candidate"`,
		coterie.RoleLeader: `"leader"`, coterie.RoleClosed: `"closed"`,
	} {
		b, err := json.Marshal(role)
		require.NoError(t, err)
		require.JSONEq(t, text, string(b))
		var read coterie.Role
		require.NoError(t, json.Unmarshal(b, &read))
		require.Equal(t, role, read)
	}
	_, err := json.Marshal(coterie.Role(9))
	require.Error(t, err)
	require.Error(t, new(coterie.Role).UnmarshalText([]byte("Role(9)")))
}

func TestLimitsHaveDefaults(t *testing.T) {
	require.Equal(t, coterie.Limits{ElectionTimeout: time.Second, MaxTxnOps: 128, MaxRequestBytes: 1536 << 10}, open(t).Limits())
	n := open(t, func(c *coterie.Config) {
		c.ElectionTimeout, c.MaxTxnOps, c.MaxRequestBytes = 50*time.Millisecond, 2, 100
	})
	require.Equal(t, coterie.Limits{ElectionTimeout: 50 * time.Millisecond, MaxTxnOps: 2, MaxRequestBytes: 100}, n.Limits())
}

func TestHeaderHasNewestRevision(t *testing.T) {
	n := open(t)
	require.EqualValues(t, 1, n.Header().Revision)
	require.Equal(t, put(t, n, "k", "v").Header, n.Header())
}

func TestLeaderIsThatOfStatus(t *testing.T) {
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true})
	require.NoError(t, err)
	defer n.Close()
	require.NoError(t, n.Ready(t.Context()))
	require.Equal(t, n.Status().Leader, n.Leader())
	require.Equal(t, n.ID(), n.Leader())
	require.Zero(t, testing.AllocsPerRun(100, func() { n.Leader() }))
	require.NoError(t, n.Close())
	require.Zero(t, n.Leader())
}
