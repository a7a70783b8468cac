// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// openSocket opens a websocket for a path of the JSON gateway, for one test.
func openSocket(t testing.TB, addr, path string, headers ...string) *websocket.Conn {
	t.Helper()
	socket, _, err := dialSocket(addr, path, headers...)
	require.NoError(t, err)
	t.Cleanup(func() { socket.Close() })
	require.NoError(t, socket.SetReadDeadline(time.Now().Add(10*time.Second)))
	return socket
}

func dialSocket(addr, path string, headers ...string) (*websocket.Conn, *http.Response, error) {
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return websocket.DefaultDialer.Dial("ws://"+addr+path, h)
}

func say(t testing.TB, socket *websocket.Conn, text string) {
	t.Helper()
	require.NoError(t, socket.WriteMessage(websocket.TextMessage, []byte(text)))
}

// hear returns the next message, without spaces.
func hear(t testing.TB, socket *websocket.Conn) string {
	t.Helper()
	_, text, err := socket.ReadMessage()
	require.NoError(t, err)
	return strings.ReplaceAll(string(text), " ", "")
}

func TestWebsocketHasAWatch(t *testing.T) {
	n := open(t)
	socket := openSocket(t, serve(t, n), "/v3/watch")
	say(t, socket, `{"create_request":{"key":"aw==","watch_id":"7"}}`)
	require.Contains(t, hear(t, socket), `"created":true`)
	put(t, n, "k", "v")
	require.Contains(t, hear(t, socket), `"value":"dg=="`)
	say(t, socket, `{"create_request":{"key":"bA==","watch_id":"8"}}`)
	require.Contains(t, hear(t, socket), `"watch_id":"8"`)
	say(t, socket, `{"cancel_request":{"watch_id":"7"}}`)
	require.Contains(t, hear(t, socket), `"canceled":true`)
	require.NoError(t, socket.Close())
	require.Eventually(t, func() bool { return n.Status().Watchers == 0 }, 5*time.Second, 10*time.Millisecond)
}

func TestWebsocketRenewsALease(t *testing.T) {
	n := open(t)
	_, err := n.Grant(t.Context(), time.Minute, coterie.WithGrantID(77))
	require.NoError(t, err)
	socket := openSocket(t, serve(t, n), "/v3beta/lease/keepalive")
	for range 3 {
		say(t, socket, `{"ID":"77"}`)
		require.Contains(t, hear(t, socket), `"TTL":"60"`)
	}
	say(t, socket, `no JSON`)
	_, _, err = socket.ReadMessage()
	require.True(t, websocket.IsCloseError(err, websocket.CloseNormalClosure), "as a stream of etcd: %v", err)
}

// A call that is not a stream of requests gets one message, and its answer ends the websocket.
func TestWebsocketHasOtherCalls(t *testing.T) {
	n := open(t)
	addr := serve(t, n)
	put(t, n, "k", "v")
	for path, body := range map[string]string{
		"/v3/kv/range": `{"key":"aw=="}`, "/v3/maintenance/snapshot": `{}`, "/v3/kv/put": `{}`, "/v3/nothing": `{}`,
	} {
		socket := openSocket(t, addr, path)
		say(t, socket, body)
		want := map[string]string{
			"/v3/kv/range": `"value":"dg=="`, "/v3/maintenance/snapshot": `"blob":`, "/v3/kv/put": `keyisnotprovided`, "/v3/nothing": `NotFound`,
		}[path]
		require.Contains(t, hear(t, socket), want, path)
		for {
			if _, _, err := socket.ReadMessage(); err != nil {
				require.True(t, websocket.IsCloseError(err, websocket.CloseNormalClosure), "%s: %v", path, err)
				break
			}
		}
	}
}

// The size of a message is bounded like that of a request. The size of the stream is not bounded, because a lease may
// be renewed for years.
func TestWebsocketMessagesAreBounded(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxRequestBytes = 1 << 20 })
	addr := serve(t, n)
	socket := openSocket(t, addr, "/v3/watch")
	for range 8 {
		say(t, socket, `{"progress_request":{}}`+strings.Repeat(" ", 1<<20))
	}
	say(t, socket, `{"create_request":{"key":"aw=="}}`)
	for !strings.Contains(hear(t, socket), `"created":true`) {
	}
	say(t, socket, strings.Repeat(" ", 4<<20))
	for {
		if _, _, err := socket.ReadMessage(); err != nil {
			break
		}
	}
	require.Eventually(t, func() bool { return n.Status().Watchers == 0 }, 5*time.Second, 10*time.Millisecond)
}

// The same-origin policy of browsers does not apply to websockets.
func TestWebsocketChecksTheOrigin(t *testing.T) {
	n := open(t)
	closed, one, every := serve(t, n), serve(t, n, etcdapi.WithOrigins("http://page.example")), serve(t, n, etcdapi.WithOrigins("*"))
	for _, c := range []struct {
		addr, origin string
		allowed      bool
	}{
		{closed, "http://" + closed, true},
		{closed, "http://page.example", false},
		{closed, "null", false},
		{one, "http://page.example", true},
		{one, "http://other.example", false},
		{every, "http://other.example", true},
	} {
		socket, resp, err := dialSocket(c.addr, "/v3/watch", "Origin", c.origin)
		if c.allowed {
			require.NoError(t, err, c.origin)
			socket.Close()
		} else {
			require.Equal(t, http.StatusForbidden, resp.StatusCode, c.origin)
		}
	}
	_, resp, err := dialSocket(serve(t, n, etcdapi.WithHosts("store")), "/v3/watch")
	require.Error(t, err)
	require.Equal(t, http.StatusMisdirectedRequest, resp.StatusCode)
}

func TestWebsocketAnswersTheSubprotocol(t *testing.T) {
	addr := serve(t, open(t))
	for _, protocols := range []string{"Bearer, secret", "Bearer,secret"} {
		socket := openSocket(t, addr, "/v3/watch", "Sec-WebSocket-Protocol", protocols)
		require.Equal(t, "Bearer", socket.Subprotocol())
	}
}

func TestServeEndsWebsockets(t *testing.T) {
	n := open(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- etcdapi.Serve(ctx, l, n) }()
	socket := openSocket(t, l.Addr().String(), "/v3/watch")
	say(t, socket, `{"create_request":{"key":"aw=="}}`)
	require.Contains(t, hear(t, socket), "created")
	begin := time.Now()
	cancel()
	require.NoError(t, <-served)
	require.Less(t, time.Since(begin), 4*time.Second)
	require.Zero(t, n.Status().Watchers, "Serve has waited for the call")
}
