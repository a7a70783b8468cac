// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A frame is a message that a client sends over a websocket, or without a text a put, and the number of answers.
type frame struct {
	text    string
	answers int
}

// TestSameAnswersOverWebsockets sends the requests of streams to both servers over websockets.
func TestSameAnswersOverWebsockets(t *testing.T) {
	etcd, node := endpoints(t)
	for _, e := range []*endpoint{etcd, node} {
		_, err := e.lease.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: 77, TTL: 1000})
		require.NoError(t, err)
	}
	for path, frames := range map[string][]frame{
		"/v3/watch": {
			{`{"create_request":{"key":"YQ==","watch_id":"7","prev_kv":true}}`, 1}, {"", 1}, {"", 1},
			{`{"create_request":{"key":"Yg=="}}`, 1}, {`{"progress_request":{}}`, 1}, {`{"cancel_request":{"watch_id":"7"}}`, 1},
		},
		"/v3/lease/keepalive":     {{`{"ID":"77"}`, 1}, {`{"ID":"78"}`, 1}, {`{"ID":"77"}`, 1}},
		"/v3beta/lease/keepalive": {{`{"ID":"77"}`, 1}},
	} {
		require.Equal(t, converse(t, etcd, path, frames), converse(t, node, path, frames), path)
	}
}

// converse returns the answers, without the values that are not comparable.
func converse(t *testing.T, e *endpoint, path string, frames []frame) (answers []string) {
	socket, _, err := websocket.DefaultDialer.Dial("ws://"+e.conn.Target()+path, nil)
	require.NoError(t, err)
	defer socket.Close()
	require.NoError(t, socket.SetReadDeadline(time.Now().Add(10*time.Second)))
	for _, f := range frames {
		if f.text == "" {
			_, err := e.kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a"), Value: []byte("v")})
			require.NoError(t, err)
		} else {
			require.NoError(t, socket.WriteMessage(websocket.TextMessage, []byte(f.text)))
		}
		for range f.answers {
			_, text, err := socket.ReadMessage()
			require.NoError(t, err, "%s of %s after %s", path, e.name, f.text)
			answers = append(answers, comparable(string(text)))
		}
	}
	return answers
}
