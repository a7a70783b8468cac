// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie/etcdapi"
)

// signingKeys are keys for all kinds of methods.
func signingKeys(t testing.TB) map[string]any {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	keys := map[string]any{"RS256": r, "RS512": r, "PS256": r, "PS384": r, "HS256": []byte("a secret"), "HS512": []byte("a secret")}
	for method, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		keys[method], err = ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
	}
	_, keys["EdDSA"], err = ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return keys
}

func newJWT(t testing.TB, method string, key any, ttl time.Duration) *etcdapi.JWT {
	t.Helper()
	j, err := etcdapi.NewJWT(method, key, ttl)
	require.NoError(t, err)
	return j
}

func TestJWTOfEachMethod(t *testing.T) {
	n := open(t)
	protect(t, n)
	for method, key := range signingKeys(t) {
		t.Run(method, func(t *testing.T) {
			addr := serve(t, n, etcdapi.WithJWT(newJWT(t, method, key, time.Hour)))
			token := tokenOf(t, addr, "alice")
			require.Len(t, strings.Split(token, "."), 3)
			callers(t, addr, func(t *testing.T, call caller) {
				for _, form := range []string{token, "Bearer " + token} {
					_, err := call(form, "KV/Put", &pb.PutRequest{Key: []byte("a")})
					require.NoError(t, err)
					_, err = call(form, "KV/Put", &pb.PutRequest{Key: []byte("z")})
					requireDenied(t, err)
				}
			})
			signer, ok := key.(crypto.Signer)
			if !ok {
				return
			}
			// An endpoint with the public key alone verifies the same tokens, and makes none.
			verifier := serve(t, n, etcdapi.WithJWT(newJWT(t, method, signer.Public(), time.Hour)))
			callers(t, verifier, func(t *testing.T, call caller) {
				_, err := call(token, "KV/Put", &pb.PutRequest{Key: []byte("a")})
				require.NoError(t, err)
				_, err = call("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "alice", Password: "alice's password"})
				requireError(t, codes.Unknown, "auth: token signing attempted with verify-only key", err)
			})
		})
	}
}

func TestForgedJWTsAreRejected(t *testing.T) {
	n, addr := protected(t)
	keys := signingKeys(t)
	private := keys["RS256"].(*rsa.PrivateKey)
	simple := tokenOf(t, addr, "root")
	addr = serve(t, n, etcdapi.WithJWT(newJWT(t, "RS256", private, time.Hour)))
	users, err := n.AuthStatus(t.Context())
	require.NoError(t, err)
	claims := func(change ...any) jwt.MapClaims {
		c := jwt.MapClaims{"username": "root", "revision": users.AuthRevision, "exp": time.Now().Add(time.Hour).Unix()}
		for i := 0; i < len(change); i += 2 {
			if name := change[i].(string); change[i+1] == nil {
				delete(c, name)
			} else {
				c[name] = change[i+1]
			}
		}
		return c
	}
	sign := func(m jwt.SigningMethod, key any, c jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(m, c).SignedString(key)
		require.NoError(t, err)
		return token
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	require.NoError(t, err)
	good := sign(jwt.SigningMethodRS256, private, claims())
	parts := strings.Split(good, ".")
	forged := map[string]string{
		"no algorithm":           sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims()),
		"another key":            sign(jwt.SigningMethodRS256, other, claims()),
		"another hash":           sign(jwt.SigningMethodRS512, private, claims()),
		"another padding":        sign(jwt.SigningMethodPS256, private, claims()),
		"the public key as HS":   sign(jwt.SigningMethodHS256, public, claims()),
		"the public PEM as HS":   sign(jwt.SigningMethodHS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), claims()),
		"expired":                sign(jwt.SigningMethodRS256, private, claims("exp", time.Now().Add(-time.Second).Unix())),
		"not valid yet":          sign(jwt.SigningMethodRS256, private, claims("nbf", time.Now().Add(time.Hour).Unix())),
		"an end that is no time": sign(jwt.SigningMethodRS256, private, claims("exp", "never")),
		"without a user":         sign(jwt.SigningMethodRS256, private, claims("username", nil)),
		"a user that is no text": sign(jwt.SigningMethodRS256, private, claims("username", 1)),
		"without a revision":     sign(jwt.SigningMethodRS256, private, claims("revision", nil)),
		"revision 0":             sign(jwt.SigningMethodRS256, private, claims("revision", 0)),
		"a negative revision":    sign(jwt.SigningMethodRS256, private, claims("revision", -1)),
		"a revision as text":     sign(jwt.SigningMethodRS256, private, claims("revision", "5")),
		"an endless revision":    sign(jwt.SigningMethodRS256, private, claims("revision", 1e300)),
		"without a signature":    parts[0] + "." + parts[1] + ".",
		"without a part":         parts[0] + "." + parts[1],
		"a signature of another": parts[0] + "." + strings.Split(sign(jwt.SigningMethodRS256, private, claims("username", "alice")), ".")[1] + "." + parts[2],
		"a token of the node":    simple,
		"nothing":                "Bearer ",
	}
	callers(t, addr, func(t *testing.T, call caller) {
		for name, token := range forged {
			for _, method := range []string{"KV/Put", "Auth/UserAdd"} {
				_, err := call(token, method, requests[method])
				require.Equal(t, codes.Unauthenticated, status.Code(err), "%s: %v", name, err)
			}
		}
		_, err := call(good, "KV/Put", &pb.PutRequest{Key: []byte("a")})
		require.NoError(t, err)
		_, err = call(sign(jwt.SigningMethodRS256, private, claims("username", "stranger")), "KV/Put", &pb.PutRequest{Key: []byte("a")})
		requireDenied(t, err)
	})
}

// A change of users or roles ends the access of older tokens to keys, as in etcd. An earlier watch continues.
func TestJWTEndsWithAChangeOfUsers(t *testing.T) {
	n := open(t)
	protect(t, n)
	addr := serve(t, n, etcdapi.WithJWT(newJWT(t, "HS256", []byte("a secret"), time.Hour)))
	token := tokenOf(t, addr, "alice")
	stream, err := pb.NewWatchClient(dial(t, addr)).Watch(as(t, addr, "alice"))
	require.NoError(t, err)
	require.NoError(t, stream.Send(watchRequest("a", "")))
	_, err = stream.Recv()
	require.NoError(t, err)
	_, err = n.RoleAdd(t.Context(), "other")
	require.NoError(t, err)
	callers(t, addr, func(t *testing.T, call caller) {
		_, err := call(token, "KV/Put", &pb.PutRequest{Key: []byte("a")})
		requireError(t, codes.InvalidArgument, "etcdserver: revision of auth store is old", err)
		_, err = call(token, "KV/Range", &pb.RangeRequest{Key: []byte("a"), Serializable: true})
		requireError(t, codes.InvalidArgument, "etcdserver: revision of auth store is old", err)
		_, err = call(token, "Watch/Watch", watchRequest("a", ""))
		require.EqualError(t, err, "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old")
	})
	put(t, n, "a", "v")
	r, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, r.Events, 1)
	c := login(t, addr, "alice", "alice's password") // gets another token by itself
	_, err = n.RoleAdd(t.Context(), "another")
	require.NoError(t, err)
	_, err = c.Put(t.Context(), "a", "v")
	require.NoError(t, err)
}

func TestJWTExpires(t *testing.T) {
	n := open(t)
	protect(t, n)
	addr := serve(t, n, etcdapi.WithJWT(newJWT(t, "HS256", []byte("a secret"), time.Second)))
	ctx, conn := as(t, addr, "alice"), dial(t, addr)
	renewals, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	require.NoError(t, err)
	require.NoError(t, renewals.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
	_, err = renewals.Recv()
	require.NoError(t, err)
	waitForTheEnd(t, ctx, conn)
	require.NoError(t, renewals.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
	_, err = renewals.Recv()
	requireError(t, codes.Unauthenticated, "etcdserver: invalid auth token", err)
}

func TestJWTIsIgnoredWithoutPermissions(t *testing.T) {
	n := open(t)
	addr := serve(t, n, etcdapi.WithJWT(newJWT(t, "HS256", []byte("a secret"), time.Second)))
	callers(t, addr, func(t *testing.T, call caller) {
		_, err := call("x", "KV/Put", &pb.PutRequest{Key: []byte("a")})
		require.NoError(t, err)
	})
}

func TestJWTConfiguration(t *testing.T) {
	keys := signingKeys(t)
	dir := t.TempDir()
	write := func(name, kind string, der []byte, err error) string {
		require.NoError(t, err)
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	files := func(name string, key crypto.Signer) (public, private string) {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		private = write(name+".key", "PRIVATE KEY", der, err)
		der, err = x509.MarshalPKIXPublicKey(key.Public())
		return write(name+".pub", "PUBLIC KEY", der, err), private
	}
	for _, method := range []string{"RS256", "PS384", "ES256", "ES512", "EdDSA"} {
		public, private := files(method, keys[method].(crypto.Signer))
		for _, option := range []string{
			"jwt,sign-method=" + method + ",pub-key=" + public + ",priv-key=" + private + ",ttl=10m",
			"jwt,priv-key=" + private + ",sign-method=" + method, "jwt,pub-key=" + public + ",sign-method=" + method,
		} {
			_, err := etcdapi.LoadJWT(option)
			require.NoError(t, err, option)
		}
	}
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("a secret"), 0o600))
	_, err := etcdapi.LoadJWT("jwt,sign-method=HS256,priv-key=" + secret)
	require.NoError(t, err)
	rsaPublic, rsaPrivate := files("RS256", keys["RS256"].(crypto.Signer))
	ecPublic, ecPrivate := files("ES256", keys["ES256"].(crypto.Signer))
	for option, text := range map[string]string{
		"simple": "jwt", "": "jwt", "jwt": "invalid option", "jwt,": "invalid option", "jwt,ttl=1m": "not a signing method",
		"jwt,sign-method=none":  "not a signing method",
		"jwt,sign-method=HS256": "does not fit", "jwt,sign-method=RS256": "does not fit",
		"jwt,sign-method=RS256,priv-key=" + ecPrivate:                                "ES256.key",
		"jwt,sign-method=ES256,pub-key=" + rsaPublic:                                 "RS256.pub",
		"jwt,sign-method=ES384,priv-key=" + ecPrivate:                                "does not fit",
		"jwt,sign-method=ES256,priv-key=" + ecPrivate + ",pub-key=" + ecPublic + "x": "no such file",
		"jwt,sign-method=RS256,priv-key=" + rsaPrivate + ",ttl=0s":                   "cannot live for 0s",
		"jwt,sign-method=RS256,priv-key=" + rsaPrivate + ",ttl=soon":                 "duration",
		"jwt,sign-method=RS256,priv-key=" + rsaPrivate + ",ttl=1m,ttl=2m":            "invalid option",
		"jwt,sign-method=RS256,priv-key=" + rsaPrivate + ",color=red":                "invalid option",
	} {
		_, err := etcdapi.LoadJWT(option)
		require.ErrorContains(t, err, text, option)
	}
	mismatch, _ := files("other", signingKeys(t)["RS256"].(crypto.Signer))
	_, err = etcdapi.LoadJWT("jwt,sign-method=RS256,priv-key=" + rsaPrivate + ",pub-key=" + mismatch)
	require.ErrorContains(t, err, "public and private keys don't match")
	_, err = etcdapi.NewJWT("RS256", []byte("text"), time.Minute)
	require.ErrorContains(t, err, "does not fit")
	_, err = etcdapi.NewJWT("HS256", keys["RS256"], time.Minute)
	require.ErrorContains(t, err, "does not fit")
}
