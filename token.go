// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/coterie-kv/coterie/internal/auth"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A Token is the content of a token that [Node.NewToken] made.
type Token struct {
	User string `json:"user"`
	// AuthRevision is the revision of users and roles for which the token was made: see [UserView.WithAuthRevision].
	AuthRevision uint64 `json:"authRevision"`
	// Expires is when the token ends, by the clock of the node that checks it.
	Expires time.Time `json:"expires"`
}

// NewToken returns a token that stands for a user for a time. A program gives it to a caller that it has
// authenticated, which presents it with later calls, to any node: see [Node.VerifyToken]. It is text of letters,
// digits, "-", "_" and one ".". A program that has it can act as the user.
//
// authRevision is that of the [AuthenticateResponse], so that the caller gets no token if the password has changed
// meanwhile; 0 is the present one. A token ends with its time, when the user is deleted or gets another password, and
// when permissions are disabled. It is not stored.
//
// Errors: ErrAuthNotEnabled; ErrUserNotFound; ErrAuthOldRevision if the password has changed since authRevision;
// ErrInvalidOption for a time that is not positive; those of AuthStatus. The first token of a cluster also needs a
// write of the secret that signs tokens, with its errors.
func (n *Node) NewToken(ctx context.Context, user string, authRevision uint64, ttl time.Duration) (string, error) {
	if ttl <= 0 {
		return "", fmt.Errorf("%w: a token that lives for %v", ErrInvalidOption, ttl)
	}
	for {
		v, err := n.latest(ctx)
		if err != nil {
			return "", err
		}
		u := v.Auth.User(user)
		if authRevision == 0 {
			authRevision = v.Auth.Revision
		}
		switch {
		case !v.Auth.Enabled:
			return "", ErrAuthNotEnabled
		case u == nil:
			return "", ErrUserNotFound
		case u.Since > authRevision:
			return "", ErrAuthOldRevision
		case v.Auth.Secret != "":
			t := Token{user, authRevision, time.Now().Add(ttl)}
			return n.sign(v.Auth, t.append(nil)), nil
		}
		var secret [sha256.Size]byte
		rand.Read(secret[:])
		if _, err := n.command(ctx, &command.Command{Auth: &command.Auth{Action: command.AuthSecret, Hash: string(secret[:])}}); err != nil {
			return "", err
		}
	}
}

// VerifyToken returns the content of a token. It asks no other node, and costs microseconds, so that a server can call
// it for each request. A node that lags may not know a new token yet, or may know one that has just ended.
//
// With the error of a token that has ended only with its time, VerifyToken returns the content, too. So a server can
// go on with a stream that began before, as long as the token has not ended for another reason.
//
// Errors: ErrInvalidAuthToken, ErrAuthNotEnabled, ErrClosed.
func (n *Node) VerifyToken(token string) (Token, error) {
	if err := n.life.Err(); err != nil {
		return Token{}, err
	}
	users := n.views.Summary().Auth
	if !users.Enabled {
		return Token{}, ErrAuthNotEnabled
	}
	if token == "" { // from a caller that asks whether permissions are checked
		return Token{}, ErrInvalidAuthToken
	}
	text, _, _ := strings.Cut(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(text)
	// Only the text that sign returns is a token, so that there is one for each content.
	if err != nil || users.Secret == "" || !hmac.Equal([]byte(n.sign(users, payload)), []byte(token)) {
		return Token{}, ErrInvalidAuthToken
	}
	var t Token
	if err := t.decode(payload); err != nil {
		return Token{}, ErrInvalidAuthToken
	}
	if u := users.User(t.User); u == nil || u.Since > t.AuthRevision {
		return Token{}, ErrInvalidAuthToken
	}
	if !time.Now().Before(t.Expires) {
		return t, ErrInvalidAuthToken
	}
	return t, nil
}

// sign returns the token with a payload. The ID of the cluster is part of the signature, because a cluster that is
// restored from a backup has the secret of the old one.
func (n *Node) sign(users *auth.Store, payload []byte) string {
	mac := hmac.New(sha256.New, []byte(users.Secret))
	mac.Write(wire.Uint(nil, 1, n.identity.Load().Cluster))
	mac.Write(payload)
	return base64.RawURLEncoding.EncodeToString(payload) + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (t *Token) append(b []byte) []byte {
	b = wire.Text(b, 1, t.User)
	b = wire.Uint(b, 2, t.AuthRevision)
	return wire.Int(b, 3, t.Expires.UnixMilli()) // nanoseconds end in the year 2262
}

func (t *Token) decode(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			t.User = r.Text()
		case 2:
			t.AuthRevision = r.Uint()
		case 3:
			t.Expires = time.UnixMilli(r.Int())
		}
	}
	return r.Err()
}
