// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/registry"
)

// serve starts a server that answers with its ID and the request.
func serve(t *testing.T, id string) registry.Instance {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, id+" "+r.Host+" "+r.URL.Path+" "+string(body))
	}))
	t.Cleanup(s.Close)
	return registry.Instance{ID: id, Addr: s.Listener.Addr().String()}
}

// gone returns an instance with an address that no server listens on.
func gone(t *testing.T, id string) registry.Instance {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return registry.Instance{ID: id, Addr: l.Addr().String()}
}

// client returns a client of a service with these instances, and its Picker.
func client(t *testing.T, base http.RoundTripper, instances ...registry.Instance) (*http.Client, *registry.Picker) {
	t.Helper()
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true})
	require.NoError(t, err)
	t.Cleanup(func() { n.Close() })
	for _, i := range instances {
		register(t, n, i)
	}
	p := picker(t, n, registry.WithPolicy(registry.RoundRobin))
	return &http.Client{Transport: &registry.Transport{Pickers: map[string]*registry.Picker{"orders": p}, Base: base}}, p
}

func body(t *testing.T, resp *http.Response, err error) string {
	t.Helper()
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	return body(t, resp, err)
}

func TestTransportUsesInstancesInTurn(t *testing.T) {
	other := serve(t, "other")
	c, _ := client(t, nil, serve(t, "a"), serve(t, "b"))
	require.Equal(t, "a orders /x ", get(t, c, "http://orders/x"))
	require.Equal(t, "b orders /x ", get(t, c, "http://orders/x"))
	require.Equal(t, "other "+other.Addr+" / ", get(t, c, "http://"+other.Addr+"/"), "a host that is not a service")
}

// once is a body that cannot be read after Close.
type once struct {
	io.ReadCloser
	closed bool
}

func (o *once) Read(b []byte) (int, error) {
	if o.closed {
		return 0, errors.New("read after close")
	}
	return o.ReadCloser.Read(b)
}

func (o *once) Close() error {
	o.closed = true
	return nil
}

func TestUnsentRequestIsRetried(t *testing.T) {
	c, _ := client(t, nil, gone(t, "a"), gone(t, "b"), serve(t, "c"))
	for range 3 {
		require.Equal(t, "c orders / ", get(t, c, "http://orders/"))
	}
	for range 3 { // with a body, which the first attempt may have read
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://orders/", strings.NewReader("text"))
		require.NoError(t, err)
		req.Body = &once{req.Body, false}
		resp, err := c.Do(req)
		require.Equal(t, "c orders / text", body(t, resp, err))
	}
	failures := 0
	for range 3 {
		resp, err := c.Post("http://orders/", "text/plain", strings.NewReader("text"))
		if err != nil {
			failures++
			continue
		}
		require.Equal(t, "c orders / text", body(t, resp, nil))
	}
	require.Equal(t, 2, failures, "a POST is not idempotent")

	c, _ = client(t, nil, gone(t, "a"), gone(t, "b"))
	_, err := c.Get("http://orders/")
	require.ErrorIs(t, err, registry.ErrNoInstance)
	var dial *net.OpError
	require.ErrorAs(t, err, &dial, "the error has the last failure")
	c, _ = client(t, nil)
	_, err = c.Get("http://orders/")
	require.ErrorIs(t, err, registry.ErrNoInstance)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPossiblySentRequestIsNotRetried(t *testing.T) {
	var calls atomic.Int64
	broken := errors.New("broken")
	base := roundTripper(func(*http.Request) (*http.Response, error) {
		calls.Add(1)
		return nil, &net.OpError{Op: "read", Err: broken}
	})
	c, _ := client(t, base, instance("a"), instance("b"))
	_, err := c.Get("http://orders/")
	require.ErrorIs(t, err, broken)
	require.EqualValues(t, 1, calls.Load())
}

// An instance is in flight until the body of the response is closed. The request is not changed.
func TestRequestInFlightUntilBodyClosed(t *testing.T) {
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true})
	require.NoError(t, err)
	defer n.Close()
	a, b := serve(t, "a"), serve(t, "b")
	register(t, n, a)
	register(t, n, b)
	p := picker(t, n, registry.WithPolicy(registry.LeastInFlight))
	c := &http.Client{Transport: &registry.Transport{Pickers: map[string]*registry.Picker{"orders": p}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://orders/", nil)
	require.NoError(t, err)
	open, err := c.Do(req)
	require.NoError(t, err)
	require.Equal(t, "orders", req.URL.Host)
	first, err := io.ReadAll(open.Body)
	require.NoError(t, err)
	for range 10 {
		require.NotEqual(t, string(first), get(t, c, "http://orders/"), "the other instance has less in flight")
	}
	var closers sync.WaitGroup
	for range 8 { // several concurrent closes count once
		closers.Go(func() {
			if err := open.Body.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closers.Wait()
	seen := map[string]int{}
	for range 64 {
		seen[get(t, c, "http://orders/")]++
	}
	require.Len(t, seen, 2)
}

// A RoundTripper must close the body of a request, also after an error.
func TestBodyOfRejectedRequestIsClosed(t *testing.T) {
	none, err := registry.NewStaticPicker(nil)
	require.NoError(t, err)
	var closed atomic.Bool
	body := closer{strings.NewReader("order"), func() { closed.Store(true) }}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://orders/", body)
	require.NoError(t, err)
	transport := &registry.Transport{Pickers: map[string]*registry.Picker{"orders": none}}
	resp, err := transport.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	require.ErrorIs(t, err, registry.ErrNoInstance)
	require.True(t, closed.Load())
}

type closer struct {
	io.Reader
	whenClosed func()
}

func (c closer) Close() error {
	c.whenClosed()
	return nil
}
