// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"encoding/json"
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
