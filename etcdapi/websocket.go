// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// A socketGateway serves the JSON gateway over websockets, as etcd does: each message of the client is a request of the
// stream, and each answer is a message. Requests without an upgrade go to the other handler.
type socketGateway struct {
	plain   http.Handler // of requests without an upgrade
	streams http.Handler // of the calls in websockets: it does not bound the body
	limit   int64        // of a message of the client, in bytes
	allowed func(r *http.Request) bool
	running *sync.WaitGroup // counts the calls in websockets: the HTTP server does not know their connections
}

// The paths of calls that read more than one request.
var socketStreams = map[string]bool{"/v3/watch": true, "/v3/lease/keepalive": true}

// socketCloseTimeout bounds how long the last message of a websocket may take.
const socketCloseTimeout = time.Second

func (g *socketGateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsWebSocketUpgrade(r) {
		g.plain.ServeHTTP(w, r)
		return
	}
	g.running.Add(1)
	defer g.running.Done()
	upgrader := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024, CheckOrigin: g.allowed}
	answer := http.Header{}
	token, hasToken := socketToken(r)
	if hasToken {
		answer.Set("Sec-WebSocket-Protocol", "Bearer")
	}
	socket, err := upgrader.Upgrade(w, r, answer)
	if err != nil {
		return // Upgrade has answered
	}
	defer socket.Close()
	socket.SetReadLimit(g.limit)

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	body, requests := io.Pipe()
	defer requests.Close() // package runtime would log any other end of a body
	go func() {
		defer cancel()
		readSocket(socket, requests, socketStreams[r.URL.Path])
	}()

	call := r.Clone(ctx)
	call.Method = http.MethodPost
	call.Body, call.ContentLength = body, -1
	call.Header = http.Header{"Content-Type": {"application/json"}}
	if hasToken {
		call.Header.Set("Authorization", "Bearer "+token)
	}
	to := &socketAnswer{socket: socket}
	g.streams.ServeHTTP(to, call)
	to.end()
}

// socketToken returns the token of the user. A web page cannot set the header Authorization of a websocket, so it sends
// the subprotocols "Bearer" and the token, or a cookie.
func socketToken(r *http.Request) (token string, ok bool) {
	if cookie, err := r.Cookie("token"); err == nil {
		token, ok = cookie.Value, true
	}
	// Some browsers put no space after the comma.
	if after, is := strings.CutPrefix(r.Header.Get("Sec-WebSocket-Protocol"), "Bearer,"); is && !ok {
		token, ok = strings.TrimSpace(after), true
	}
	return token, ok
}

// readSocket copies the messages of the client to the body of a call, until one of them ends. A call that is not a stream
// waits for the end of its body, so its body ends with the first message.
func readSocket(socket *websocket.Conn, body *io.PipeWriter, stream bool) {
	defer body.Close()
	for first := true; ; first = false {
		_, message, err := socket.NextReader()
		if err != nil {
			return
		}
		if !stream && !first {
			continue // NextReader drops the message
		}
		if _, err := io.Copy(body, io.MultiReader(message, strings.NewReader("\n"))); err != nil {
			return
		}
		if !stream {
			body.Close()
		}
	}
}

// A socketAnswer is the http.ResponseWriter of a call in a websocket. It sends each line of the body as a message. As
// in etcd, the status and the headers are not sent; the body of an error has its code.
type socketAnswer struct {
	socket *websocket.Conn
	header http.Header
	line   []byte // the beginning of a line
}

func (a *socketAnswer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

func (a *socketAnswer) WriteHeader(int) {}

// Flush implements http.Flusher. Write has sent every whole line.
func (a *socketAnswer) Flush() {}

func (a *socketAnswer) Write(p []byte) (int, error) {
	written := 0
	for end := slices.Index(p, '\n'); end >= 0; end = slices.Index(p[written:], '\n') {
		a.line = append(a.line, p[written:written+end]...)
		if err := a.send(); err != nil {
			return written, err
		}
		written += end + 1
	}
	a.line = append(a.line, p[written:]...)
	return len(p), nil
}

// send sends the line, unless it is empty.
func (a *socketAnswer) send() error {
	if len(a.line) == 0 {
		return nil
	}
	line := a.line
	a.line = nil // do not keep the memory of a long line for the life of the stream
	return a.socket.WriteMessage(websocket.TextMessage, line)
}

// end sends the last line of an answer, and closes the websocket.
func (a *socketAnswer) end() {
	if a.send() != nil {
		return // the client has gone
	}
	_ = a.socket.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""),
		time.Now().Add(socketCloseTimeout))
}

// socketAllowed reports whether a web page may open a websocket: CORS does not apply to websockets, so a page of any
// origin could otherwise use an endpoint that its visitor can reach. Programs that are not web browsers send no origin.
func (s *server) socketAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || s.allowedOrigin(r) != "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}
