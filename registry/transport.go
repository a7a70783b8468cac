// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
)

// A Transport is an [http.RoundTripper] that sends requests to instances of services. The host of a URL
// names the service. A Transport is safe for concurrent use; do not change its fields after its first
// use.
//
//	client := &http.Client{Transport: &registry.Transport{Pickers: map[string]*registry.Picker{"orders": orders}}}
//	resp, err := client.Get("http://orders/v1/list")
//
// If the connection for a request cannot be made, no byte of it was sent. The Transport then tries the
// other instances in turn, provided that the method is idempotent and the body can be read again. It
// retries after no other failure, because the instance may have handled the request. The Host header stays
// the name of the service. For https, the certificate must match the address of the instance, unless Base
// has another ServerName.
type Transport struct {
	// Pickers has a Picker for each host that is a service. Base gets the requests for other hosts
	// unchanged. If this process is an instance of the service, make the Picker with [WithoutSelf], so
	// that the process does not call itself.
	Pickers map[string]*Picker
	// Base sends the requests; nil means http.DefaultTransport.
	Base http.RoundTripper
}

// RoundTrip sends a request to an instance. It blocks as Base does. The instance counts as in flight
// until the body of the response is closed.
//
// Errors: ErrNoInstance; Base's.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	picker := t.Pickers[req.URL.Host]
	if picker == nil {
		return base.RoundTrip(req)
	}
	var tried []string
	var failed error
	for {
		c, err := picker.Pick(tried...)
		if err != nil {
			if failed == nil && req.Body != nil {
				_ = req.Body.Close() // a RoundTripper must close it, also after an error
			}
			return nil, errors.Join(failed, err)
		}
		out, err := redirect(req, c.Addr, len(tried) > 0)
		if err != nil {
			c.Done()
			return nil, errors.Join(failed, err)
		}
		resp, err := base.RoundTrip(out)
		if err == nil {
			resp.Body = whenClosed(resp.Body, c.Done)
			return resp, nil
		}
		c.Done()
		if req.Context().Err() != nil || !repeatable(req) || !unsent(err) {
			return nil, err
		}
		tried, failed = append(tried, c.ID), err
	}
}

// redirect returns a copy of a request for an address. If the request is sent again, the copy has a new
// body.
func redirect(req *http.Request, addr string, again bool) (*http.Request, error) {
	out := req.Clone(req.Context())
	out.URL.Host = addr
	if out.Host == "" {
		out.Host = req.URL.Host
	}
	if again && req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		out.Body = body
	}
	return out, nil
}

// repeatable reports whether a request is idempotent and its body can be read again.
func repeatable(req *http.Request) bool {
	idempotent := []string{"", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete}
	return slices.Contains(idempotent, req.Method) && (req.Body == nil || req.Body == http.NoBody || req.GetBody != nil)
}

// unsent reports whether a request failed before there was a connection.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// whenClosed returns a body that calls done once, when it is closed. After a switch of protocols the body
// is also an io.Writer; it must keep its type, so whenClosed calls done at once.
func whenClosed(body io.ReadCloser, done func()) io.ReadCloser {
	if _, ok := body.(io.Writer); ok {
		done()
		return body
	}
	return closing{body, sync.OnceFunc(done)}
}

type closing struct {
	io.ReadCloser
	done func()
}

func (c closing) Close() error {
	c.done()
	return c.ReadCloser.Close()
}
