// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

// requireFilled checks that every field of a sample is set.
func requireFilled(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		require.False(t, v.Field(i).IsZero(), "%v.%s", v.Type(), v.Type().Field(i).Name)
	}
}

func TestInspectionRoundTripsThroughJSON(t *testing.T) {
	member := datadir.Member{ID: math.MaxUint64, Addr: "a:1", Voter: true, Name: "a", Incarnation: math.MaxUint64 - 1, Metadata: map[string]string{"zone": "z"}}
	in := datadir.Inspection{
		Dir: "/data", Storage: "bolt", ClusterID: math.MaxUint64 - 2, Member: math.MaxUint64, Incarnation: math.MaxUint64 - 1, Epoch: 1,
		MayLackAcknowledged: true, RestoreUnfinished: true, Term: 2, VoteTerm: 3, VotedFor: 4, FirstIndex: 5, LastIndex: 6, LastTerm: 7, DurableIndex: 8,
		AppliedIndex: 9, Revision: 10, CompactRevision: -1, Keys: 11, Leases: 12, Members: []datadir.Member{member},
		Snapshots:     []datadir.Snapshot{{File: "f", Index: 13, Term: 14, Size: 15, Revision: 16}},
		TornTailBytes: 17, DamagedFiles: []datadir.DamagedFile{{File: "g", Reason: "h"}},
		OtherFormats: []coterie.FormatError{{What: "i", Version: 2, Reads: 1}},
	}
	requireFilled(t, reflect.ValueOf(in))
	requireFilled(t, reflect.ValueOf(member))
	requireFilled(t, reflect.ValueOf(in.Snapshots[0]))
	b, err := json.Marshal(in)
	require.NoError(t, err)
	for _, text := range []string{
		`"cluster":"fffffffffffffffd"`, `"member":"ffffffffffffffff"`, `"epoch":"0000000000000001"`, `"votedFor":"0000000000000004"`,
	} {
		require.Contains(t, string(b), text)
	}
	var read datadir.Inspection
	require.NoError(t, json.Unmarshal(b, &read))
	require.Equal(t, in, read)
	require.Equal(t, b, must(t)(json.Marshal(&read)))

	empty := must(t)(json.Marshal(datadir.Inspection{Dir: "d"}))
	for _, list := range []string{`"members":[]`, `"snapshots":[]`, `"damagedFiles":[]`, `"otherFormats":[]`} {
		require.Contains(t, string(empty), list)
	}
	require.Contains(t, string(must(t)(json.Marshal(datadir.Recovery{}))), `"voters":[]`)
}

func must(t *testing.T) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		require.NoError(t, err)
		return b
	}
}

func TestOtherJSONIsNoInspection(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, `{"backup": "b", "cluster": "00"}`, `{"directory": "d", "cluster": 5}`, `{"directory": "d", "durable": 5}`, `{"directory": "d", "member": "x"}`,
		`{"directory": "d", "epoch": "12345678901234567"}`, `{"directory": "d", "members": [{"incarnation": "x"}]}`,
	} {
		in := datadir.Inspection{Dir: "before"}
		require.Error(t, json.Unmarshal([]byte(text), &in), text)
		require.Equal(t, datadir.Inspection{Dir: "before"}, in, text)
	}
}

func TestBehindErrorRoundTripsThroughJSON(t *testing.T) {
	behind := datadir.BehindError{Member: 10, Dir: "/b", Index: 7, Term: 3}
	b, err := json.Marshal(behind)
	require.NoError(t, err)
	require.JSONEq(t, `{"member":"000000000000000a","dir":"/b","index":7,"term":3}`, string(b))
	var read datadir.BehindError
	require.NoError(t, json.Unmarshal(b, &read))
	require.Equal(t, behind, read)
}
