// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// do sends a request over HTTP, and returns the status and the body of the answer.
func do(t testing.TB, method, url, body string, headers ...string) (code int, text string, h http.Header) {
	t.Helper()
	return doWith(t, http.DefaultClient, method, url, body, headers...)
}

func doWith(t testing.TB, c *http.Client, method, url, body string, headers ...string) (code int, text string, h http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	r.Close = true
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(all), resp.Header
}

func TestOnePortHasGRPCAndHTTP(t *testing.T) {
	addr := serve(t, open(t))
	_, err := pb.NewKVClient(dial(t, addr)).Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
	require.NoError(t, err)
	code, body, _ := do(t, "POST", "http://"+addr+"/v3/kv/range", `{"key":"aw=="}`)
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, strings.ReplaceAll(body, " ", ""), `"value":"dg=="`)
	code, _, _ = do(t, "POST", "http://"+addr+"/v3beta/kv/range", `{"key":"aw=="}`)
	require.Equal(t, http.StatusOK, code)
}

func TestHTTPStreamIsAWatch(t *testing.T) {
	n := open(t)
	resp, err := http.Post("http://"+serve(t, n)+"/v3/watch", "application/json", strings.NewReader(`{"create_request":{"key":"aw=="}}`))
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "created")
	put(t, n, "k", "v")
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "dg==")
}

// A client of HTTP/1.1 sends the second request of a stream after the first answer.
func TestHTTPStreamGoesBothWays(t *testing.T) {
	n := open(t)
	body, requests := io.Pipe()
	go func() { _, _ = io.WriteString(requests, `{"create_request":{"key":"aw==","watch_id":"7"}}`) }()
	resp, err := http.Post("http://"+serve(t, n)+"/v3/watch", "application/json", body)
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "created")
	_, err = io.WriteString(requests, `{"cancel_request":{"watch_id":"7"}}`)
	require.NoError(t, err)
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "canceled")
	require.NoError(t, requests.Close())
}

func TestServeEndsHTTPStreams(t *testing.T) {
	n := open(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- etcdapi.Serve(ctx, l, n) }()
	resp, err := http.Post("http://"+l.Addr().String()+"/v3/watch", "application/json", strings.NewReader(`{"create_request":{"key":"aw=="}}`))
	require.NoError(t, err)
	defer resp.Body.Close()
	begin := time.Now()
	cancel()
	require.NoError(t, <-served)
	require.Less(t, time.Since(begin), 4*time.Second)
	_, _ = io.ReadAll(resp.Body) // which ends
}

func TestHTTPBodiesAreBounded(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxRequestBytes = 1 << 20 })
	url := "http://" + serve(t, n) + "/v3/kv/put"
	code, _, _ := do(t, "POST", url, `{"key":"aw==","value":"`+strings.Repeat("A", 1<<20)+`"}`)
	require.Equal(t, http.StatusOK, code)
	code, body, _ := do(t, "POST", url, `{"key":"aw==","value":"`+strings.Repeat("A", 2<<20)+`"}`)
	require.Equal(t, http.StatusBadRequest, code, body)
	require.Contains(t, body, "request is too large")
	code, body, _ = do(t, "POST", url, `{"key":"aw==","value":"`+strings.Repeat("A", 4<<20)+`"}`)
	require.Equal(t, http.StatusBadRequest, code, body)
	require.Contains(t, body, "request body too large")
}

func TestConnectionsAreBounded(t *testing.T) {
	addr := serve(t, open(t), etcdapi.WithMaxConnections(2))
	silent := func() net.Conn {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	first := silent()
	silent()
	refused := silent()
	require.NoError(t, refused.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err := refused.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, first.Close())
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + addr + "/version")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	}, 5*time.Second, 10*time.Millisecond, "a connection that is closed makes room")
}

func TestStreamsAreBounded(t *testing.T) {
	conn := dial(t, serve(t, open(t), etcdapi.WithMaxStreams(1)))
	s := openWatchStream(t, conn)
	s.request(&pb.WatchCreateRequest{Key: []byte("k")})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	require.ErrorContains(t, err, "DeadlineExceeded")
}

// DNS rebinding makes a browser address an endpoint by the name of an attacker.
func TestHostsAreChecked(t *testing.T) {
	addr := serve(t, open(t), etcdapi.WithHosts("127.0.0.1", "store"))
	for host, want := range map[string]int{
		addr: http.StatusOK, "store:2379": http.StatusOK, "store": http.StatusOK, "attacker.example": http.StatusMisdirectedRequest,
		"attacker.example:2379": http.StatusMisdirectedRequest,
	} {
		for _, path := range []string{"/version", "/v3/kv/range", "/health"} {
			method := "GET"
			if strings.HasPrefix(path, "/v3/") {
				method = "POST"
			}
			code, _, _ := do(t, method, "http://"+addr+path, `{"key":"aw=="}`, "Host", host)
			require.Equal(t, want, code, "%s of %s", path, host)
		}
	}
}

func TestOriginsAreChosen(t *testing.T) {
	n := open(t)
	allowed := func(addr, origin string) string {
		_, _, h := do(t, "GET", "http://"+addr+"/version", "", "Origin", origin)
		return h.Get("Access-Control-Allow-Origin")
	}
	require.Empty(t, allowed(serve(t, n), "http://page.example"))
	require.Equal(t, "*", allowed(serve(t, n, etcdapi.WithOrigins("*")), "http://page.example"))
	addr := serve(t, n, etcdapi.WithOrigins("http://page.example"))
	require.Equal(t, "http://page.example", allowed(addr, "http://page.example"))
	require.Empty(t, allowed(addr, "http://other.example"))
	code, _, h := do(t, "OPTIONS", "http://"+addr+"/v3/kv/range", "", "Origin", "http://page.example")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, h.Get("Access-Control-Allow-Headers"), "authorization")
}

func TestHandlersOfTheCaller(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "profile") })
	_, body, _ := do(t, "GET", "http://"+serve(t, open(t), etcdapi.WithHandler("/debug/pprof/", h))+"/debug/pprof/heap", "")
	require.Equal(t, "profile", body)
}

func TestProbesWithAlarms(t *testing.T) {
	n := open(t)
	url := "http://" + serve(t, n)
	for _, kind := range []coterie.AlarmKind{coterie.AlarmNoSpace, coterie.AlarmCorrupt} {
		a := coterie.Alarm{Member: n.ID(), Kind: kind}
		_, err := n.RaiseAlarm(t.Context(), a)
		require.NoError(t, err)
		code, body, _ := do(t, "GET", url+"/health", "")
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Equal(t, fmt.Sprintf(`{"health":"false","reason":"ALARM %v"}`+"\n", kind), body)
		code, _, _ = do(t, "GET", url+"/health?exclude="+kind.String(), "")
		require.Equal(t, http.StatusOK, code)
		code, body, _ = do(t, "GET", url+"/readyz", "")
		if kind == coterie.AlarmCorrupt {
			require.Equal(t, http.StatusServiceUnavailable, code)
			require.Contains(t, body, "[-]data_corruption failed: alarm activated: CORRUPT")
		} else {
			require.Equal(t, http.StatusOK, code)
		}
		_, err = n.ClearAlarm(t.Context(), a)
		require.NoError(t, err)
	}
}

// One listener has gRPC, another one HTTP, as with etcd's --listen-client-http-urls.
func TestHTTPHasItsOwnListener(t *testing.T) {
	n := open(t)
	var m etcdapi.Metrics
	calls := serve(t, n, etcdapi.WithoutHTTP(), etcdapi.WithMetrics(&m))
	web := serveWith(t, etcdapi.ServeHTTP, n, etcdapi.WithMetrics(&m))
	_, err := pb.NewKVClient(dial(t, calls)).Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
	require.NoError(t, err)
	code, _, _ := do(t, "GET", "http://"+calls+"/version", "")
	require.Equal(t, http.StatusNotFound, code)
	code, body, _ := do(t, "POST", "http://"+web+"/v3/kv/range", `{"key":"aw=="}`)
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "dg==")
	_, body, _ = do(t, "GET", "http://"+web+"/metrics", "")
	require.Contains(t, body, `grpc_server_handled_total{grpc_code="OK",grpc_method="Put"`, "both listeners count together")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = pb.NewKVClient(dial(t, web)).Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
	require.Error(t, err)
}

// A client that does not answer the pings of WithKeepalive is disconnected.
func TestSilentClientIsDisconnected(t *testing.T) {
	c, err := net.Dial("tcp", serve(t, open(t), etcdapi.WithKeepalive(5*time.Second, time.Second, 100*time.Millisecond)))
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = io.Copy(io.Discard, c)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}
