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

// A Transport is an http.RoundTripper that sends requests to instances of services: the host of a
// URL names the service. It may be used concurrently; its fields must not be changed once it is.
//
//	client := &http.Client{Transport: &registry.Transport{Pickers: map[string]*registry.Picker{"orders": orders}}}
//	resp, err := client.Get("http://orders/v1/list")
//
// A request whose connection could not be made, so that nothing of it was sent, is tried on the
// other instances in turn, if its method is idempotent and its body can be had again. No other
// failure is: what was sent may have been done. The header Host stays the service's name. For https
// the certificates are checked against the instance's address, unless Base has another ServerName.
type Transport struct {
	// Pickers has a Picker for each host that is a service. Other hosts are left to Base. For the service
	// that this process is an instance of, make the Picker with WithoutSelf, so that no request comes back.
	Pickers map[string]*Picker
	// Base sends the requests; nil: http.DefaultTransport.
	Base http.RoundTripper
}

// RoundTrip sends a request to an instance. It blocks as Base does. The choice is Done when the
// body of the response is closed.
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
				_ = req.Body.Close() // as a RoundTripper has to
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

// redirect returns a request's copy for an address, with a new body if the first one was used.
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

// repeatable reports whether a request may be sent twice, and can.
func repeatable(req *http.Request) bool {
	idempotent := []string{"", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete}
	return slices.Contains(idempotent, req.Method) && (req.Body == nil || req.Body == http.NoBody || req.GetBody != nil)
}

// unsent reports whether an error says that there was no connection to send anything by.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// whenClosed has done be called once, when a body is closed. The body of a connection that was
// handed over to another protocol has to stay what it is.
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
