// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/coterie-kv/coterie"
)

// An origin is the way in which calls reach a server. It decides which parts of a context name the user.
type origin uint8

const (
	network   origin = iota // calls of gRPC: a token, or the certificate of the connection
	gateway                 // calls of HTTP: a token
	embedder                // calls of the program itself: a token, or else the view of the client
	delegated               // calls of a service of this package on behalf of its caller
)

// from returns the server for calls of another origin.
func (s *server) from(o origin) *server {
	other := *s
	other.origin, other.direct = o, false
	switch o {
	case embedder:
		other.remote = false
	case delegated:
		other.measures = nil // the call that delegates is counted
	}
	return &other
}

// identify returns the view of the user that makes a call. A call without credentials has no user. It may do
// everything until permissions are checked, and then almost nothing.
func (s *server) identify(ctx context.Context) (*coterie.UserView, error) {
	if s.origin == delegated {
		return s.user(ctx), nil
	}
	name, certified := s.commonName(ctx)
	if s.origin != embedder && !certified && !s.checked() {
		// A token has no effect. The search for one in the metadata would cost each call half a microsecond.
		return s.noUser, nil
	}
	if token, ok := tokenOf(ctx); ok {
		return s.tokenUser(ctx, token)
	}
	if s.origin == embedder {
		return s.own, nil
	}
	if certified {
		return coterie.NewUserView(s.node, name), nil
	}
	return s.noUser, nil
}

// userKey is the key of the view of the user in the context of a call.
type userKey struct{}

// identified returns the context of a call with its user. It is ctx if the call has no user.
func (s *server) identified(ctx context.Context) (context.Context, error) {
	user, err := s.identify(ctx)
	if err != nil {
		return nil, err
	}
	return s.actAs(ctx, user), nil
}

// actAs returns a context for calls of a user.
func (s *server) actAs(ctx context.Context, user *coterie.UserView) context.Context {
	if s.user(ctx) == user {
		return ctx
	}
	return context.WithValue(ctx, userKey{}, user)
}

// user returns the view of the user of a call. Handlers make every call of a client with it.
func (s *server) user(ctx context.Context) *coterie.UserView {
	if user, ok := ctx.Value(userKey{}).(*coterie.UserView); ok {
		return user
	}
	return s.noUser
}

// tokenOf returns the token of a call. As in etcd, the first one counts, even if it is empty.
func tokenOf(ctx context.Context) (string, bool) {
	for _, key := range []string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger} {
		if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
			return strings.TrimPrefix(values[0], "Bearer "), true
		}
	}
	return "", false
}

// tokenUser returns the view of the user of a token.
func (s *server) tokenUser(ctx context.Context, token string) (*coterie.UserView, error) {
	if s.jwt != nil {
		return s.jwtUser(token)
	}
	t, err := s.verify(ctx, token)
	if errors.Is(err, coterie.ErrAuthNotEnabled) {
		return s.noUser, nil
	}
	if err != nil {
		return nil, err
	}
	return coterie.NewUserView(s.node, t.User), nil
}

// jwtUser returns the view of the user that a JSON web token names. As in etcd, a token ends with every change of users
// and roles.
func (s *server) jwtUser(token string) (*coterie.UserView, error) {
	if !s.checked() {
		return s.noUser, nil
	}
	user, revision, err := s.jwt.verify(token)
	if err != nil {
		return nil, err
	}
	return coterie.NewUserView(s.node, user).WithAuthRevision(revision), nil
}

// verify returns the content of a token that this package has made. For an expired token it returns both the content
// and an error. Another node may have made the token so recently that this node does not know the change of users that
// the token is based on. So verify checks an apparently invalid token again when the node has caught up with the
// cluster.
func (s *server) verify(ctx context.Context, token string) (coterie.Token, error) {
	t, err := s.node.VerifyToken(token)
	if timeEnded := t.User != ""; timeEnded || !errors.Is(err, coterie.ErrInvalidAuthToken) {
		return t, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.limits.ElectionTimeout)
	defer cancel()
	if _, failed := s.node.AuthStatus(ctx); failed != nil {
		return t, err
	}
	return s.node.VerifyToken(token)
}

// checked reports whether permissions are checked, as far as this node knows.
func (s *server) checked() bool {
	_, err := s.node.VerifyToken("")
	return !errors.Is(err, coterie.ErrAuthNotEnabled)
}

// gatewayHeader is in the metadata of calls that a gateway makes for others. The certificate of such a call is the
// gateway's.
const gatewayHeader = "grpcgateway-accept"

// commonName returns the common name in the certificate of a call's client, if it counts as the name of a user.
func (s *server) commonName(ctx context.Context) (string, bool) {
	if s.origin != network || !s.commonNames {
		return "", false
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(metadata.ValueFromIncomingContext(ctx, gatewayHeader)) > 0 {
		return "", false
	}
	for _, chain := range info.State.VerifiedChains {
		if len(chain) > 0 {
			return chain[0].Subject.CommonName, true
		}
	}
	return "", false
}

// A streamUser is the user of a stream of requests. The user is looked up for each request: if the token has become
// invalid together with its user or with all tokens, the next request fails. One goroutine uses a streamUser.
type streamUser struct {
	*server
	ctx   context.Context
	begun bool // the token was valid once
}

func (s *server) streamUser(ctx context.Context) *streamUser {
	u := &streamUser{server: s, ctx: ctx}
	_, _ = u.now() // the time of the token counts when the stream begins; the first request gets the error
	return u
}

// now returns the view of the user. The time of a token counts only when the stream begins: a stream may wait for long
// between two requests, and the token of its client cannot be replaced. In etcd, every use of a token extends its time.
func (u *streamUser) now() (*coterie.UserView, error) {
	token, ok := tokenOf(u.ctx)
	if !ok || u.jwt != nil || u.origin == delegated {
		return u.identify(u.ctx)
	}
	t, err := u.verify(u.ctx, token)
	switch {
	case errors.Is(err, coterie.ErrAuthNotEnabled):
		return u.noUser, nil
	case err != nil && !(u.begun && t.User != ""):
		return nil, err
	}
	u.begun = true
	return coterie.NewUserView(u.node, t.User), nil
}
