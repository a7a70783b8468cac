// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func TestDurationsOfLeasesAreTextInJSON(t *testing.T) {
	header := coterie.Header{ClusterID: 1, MemberID: 2, Revision: 3, Term: 4}
	for text, response := range map[string]any{
		`{"cluster":"0000000000000001","member":"0000000000000002","revision":3,"term":4,"id":"0000000000000007","ttl":"1m30s"}`: &coterie.GrantResponse{
			Header: header, ID: 7, TTL: 90 * time.Second,
		},
		`{"cluster":"0000000000000001","member":"0000000000000002","revision":3,"term":4,"id":"0000000000000007","ttl":"0s"}`: &coterie.KeepAliveResponse{
			Header: header, ID: 7,
		},
		`{"cluster":"0000000000000001","member":"0000000000000002","revision":3,"term":4,"id":"0000000000000007","ttl":"1m0s",
			"remaining":"1.5s","keys":["k"]}`: &coterie.TimeToLiveResponse{
			Header: header, ID: 7, TTL: time.Minute, Remaining: 1500 * time.Millisecond, Keys: []string{"k"},
		},
	} {
		b, err := json.Marshal(response)
		require.NoError(t, err)
		require.JSONEq(t, text, string(b))
		value, err := json.Marshal(reflect.ValueOf(response).Elem().Interface())
		require.NoError(t, err)
		require.Equal(t, b, value, "a value is written as a pointer to it")
		read := reflect.New(reflect.TypeOf(response).Elem()).Interface()
		require.NoError(t, json.Unmarshal(b, read))
		require.Equal(t, response, read)
		require.Error(t, json.Unmarshal([]byte(`{"ttl":90000000000}`), read), "a number")
	}
}

func TestListsAreNeverNullInJSON(t *testing.T) {
	for list, v := range map[string]any{
		`"kvs":[]`:                          coterie.GetResponse{},
		`"keys":[]`:                         coterie.TimeToLiveResponse{},
		`"leases":[]`:                       coterie.LeasesResponse{},
		`"responses":[]`:                    coterie.TxnResponse{},
		`"roles":[]`:                        coterie.RoleListResponse{},
		`"users":[]`:                        coterie.UserListResponse{},
		`"permissions":[]`:                  coterie.RoleGetResponse{},
		`"term":0,"roles":[]`:               coterie.UserGetResponse{},
		`"events":[]`:                       coterie.WatchResponse{},
		`"events":[],"err":"coterie: boom"`: coterie.WatchResult{Err: errors.New("coterie: boom")},
		`"get":{"cluster":"0000000000000000","member":"0000000000000000","revision":0,"term":0,"kvs":[]`: coterie.OpResponse{
			Get: &coterie.GetResponse{},
		},
		`{"revision":0,"kvs":{},"events":[]}`: coterie.PrefixState{},
	} {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		require.Contains(t, string(b), list)
		require.NotContains(t, string(b), "null")
	}
}

func TestPrefixStateHasLowerCaseNamesInJSON(t *testing.T) {
	s := coterie.PrefixState{
		Revision: 3, KVs: map[string]coterie.KeyValue{"k": {Key: "k", Value: "v", ModRevision: 3}},
		Events: []coterie.Event{{Type: coterie.EventPut, KV: coterie.KeyValue{Key: "k", Value: "v", ModRevision: 3}}},
	}
	b, err := json.Marshal(s)
	require.NoError(t, err)
	kv := `{"key":"k","value":"v","createRevision":0,"modRevision":3,"version":0,"lease":"0000000000000000"}`
	require.JSONEq(t, `{"revision":3,"kvs":{"k":`+kv+`},"events":[{"type":"PUT","kv":`+kv+`}]}`, string(b))
	var read coterie.PrefixState
	require.NoError(t, json.Unmarshal(b, &read))
	require.Equal(t, s, read)
}

func TestErrorsHaveLowerCaseNamesInJSON(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxTxnOps = 1 })
	_, err := n.Txn(t.Context()).Then(coterie.OpGet("k"), coterie.OpGet("l")).Commit()
	var limit *coterie.LimitError
	require.ErrorAs(t, err, &limit)
	text, err := json.Marshal(limit.Error())
	require.NoError(t, err)
	for want, v := range map[string]any{
		`{"limit":1,"actual":2,"err":` + string(text) + `}`: limit,
		`{"limit":3,"actual":4}`:                            coterie.LimitError{Limit: 3, Actual: 4},
		`{"revision":5}`:                                    &coterie.CompactedError{Revision: 5},
	} {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		require.JSONEq(t, want, string(b))
	}
	var read coterie.LimitError
	require.NoError(t, json.Unmarshal([]byte(`{"limit":3,"actual":4,"err":"a text"}`), &read))
	require.Equal(t, coterie.LimitError{Limit: 3, Actual: 4}, read)
	require.EqualError(t, &read, "coterie: 4 exceeds the limit of 3")
}

func TestHeldErrorIsTextInJSON(t *testing.T) {
	held := coterie.NewHeldError("l", coterie.KeyValue{Key: "l/1", Value: "v", Lease: 7}, coterie.ErrLocked)
	for want, v := range map[string]any{
		`{"name":"l","key":"l/1","value":"v","lease":"0000000000000007","err":"coterie: locked"}`: held,
		`{"name":"","key":"","value":"","lease":"0000000000000000"}`:                              coterie.HeldError{},
	} {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		require.JSONEq(t, want, string(b))
	}
}
