// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/coterie-kv/coterie"
)

// A JWT makes and verifies JSON web tokens, for [WithJWT]. It is immutable.
type JWT struct {
	method jwt.SigningMethod
	sign   any // nil: it only verifies
	check  any
	ttl    time.Duration
}

// NewJWT returns a JWT with one signing method: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA,
// HS256, HS384 or HS512. The key is a *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey, or a []byte for HS.
// With the public key alone, the endpoint verifies tokens that another program makes, and its Authenticate fails.
// Tokens of the endpoint live for ttl.
//
// Errors: an unknown method; a key that does not fit the method; a ttl that is not positive.
func NewJWT(method string, key any, ttl time.Duration) (*JWT, error) {
	if ttl <= 0 {
		return nil, fmt.Errorf("etcdapi: JWT: a token cannot live for %v", ttl)
	}
	j := &JWT{method: jwt.GetSigningMethod(method), ttl: ttl}
	if private, ok := key.(crypto.Signer); ok {
		j.sign, j.check = key, private.Public()
	} else {
		j.check = key
	}
	fits := false
	switch m := j.method.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		_, fits = j.check.(*rsa.PublicKey)
	case *jwt.SigningMethodECDSA:
		public, ok := j.check.(*ecdsa.PublicKey)
		fits = ok && public.Curve.Params().BitSize == m.CurveBits
	case *jwt.SigningMethodEd25519:
		_, fits = j.check.(ed25519.PublicKey)
	case *jwt.SigningMethodHMAC:
		secret, ok := key.([]byte)
		fits = ok && len(secret) > 0
		j.sign = key
	default:
		return nil, fmt.Errorf("etcdapi: JWT: %q is not a signing method", method)
	}
	if !fits {
		return nil, fmt.Errorf("etcdapi: JWT: a key of type %T does not fit %s", key, method)
	}
	return j, nil
}

// defaultTokenTTL is etcd's.
const defaultTokenTTL = 5 * time.Minute

// LoadJWT returns the JWT of a value of etcd's flag --auth-token, such as
//
//	jwt,sign-method=RS256,pub-key=app.rsa.pub,priv-key=app.rsa,ttl=10m
//
// The files are PEM, or the secret itself for HS. The default of ttl is 5 minutes.
//
// Errors: those of the files and of [NewJWT]; another syntax; keys that do not belong together.
func LoadJWT(option string) (*JWT, error) {
	kind, list, _ := strings.Cut(option, ",")
	if kind != "jwt" {
		return nil, fmt.Errorf("etcdapi: JWT: %q does not begin with \"jwt,\"", kind)
	}
	values := map[string]string{"ttl": defaultTokenTTL.String()}
	given := map[string]bool{}
	for pair := range strings.SplitSeq(list, ",") {
		name, value, ok := strings.Cut(pair, "=")
		switch name {
		case "sign-method", "pub-key", "priv-key", "ttl":
		default:
			ok = false
		}
		if !ok || given[name] {
			return nil, fmt.Errorf("etcdapi: JWT: invalid option %q: give \"jwt,sign-method=METHOD,priv-key=FILE\", and optionally pub-key and ttl, each once", pair)
		}
		values[name], given[name] = value, true
	}
	ttl, err := time.ParseDuration(values["ttl"])
	if err != nil {
		return nil, fmt.Errorf("etcdapi: JWT: %w", err)
	}
	key, err := loadKeys(values["sign-method"], values["pub-key"], values["priv-key"])
	if err != nil {
		return nil, fmt.Errorf("etcdapi: JWT: %w", err)
	}
	return NewJWT(values["sign-method"], key, ttl)
}

// loadKeys returns the private key of a file or, without one, the public key. The files of both must belong together.
func loadKeys(method, publicFile, privateFile string) (any, error) {
	var texts [2][]byte
	for i, name := range []string{publicFile, privateFile} {
		if name == "" {
			continue
		}
		var err error
		if texts[i], err = os.ReadFile(name); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(method, "HS") {
		return texts[1], nil
	}
	var public, private any
	var err error
	if texts[0] != nil {
		if public, err = publicKey(method, texts[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", publicFile, err)
		}
	}
	if texts[1] == nil {
		return public, nil
	}
	if private, err = privateKey(method, texts[1]); err != nil {
		return nil, fmt.Errorf("%s: %w", privateFile, err)
	}
	signer, ok := private.(interface{ Public() crypto.PublicKey })
	if !ok {
		return nil, fmt.Errorf("%s: a key of type %T cannot sign", privateFile, private)
	}
	if known, ok := public.(interface{ Equal(crypto.PublicKey) bool }); ok && !known.Equal(signer.Public()) {
		return nil, errors.New("public and private keys don't match")
	}
	return private, nil
}

func publicKey(method string, text []byte) (any, error) {
	switch {
	case strings.HasPrefix(method, "ES"):
		return jwt.ParseECPublicKeyFromPEM(text)
	case method == "EdDSA":
		return jwt.ParseEdPublicKeyFromPEM(text)
	}
	return jwt.ParseRSAPublicKeyFromPEM(text)
}

func privateKey(method string, text []byte) (any, error) {
	switch {
	case strings.HasPrefix(method, "ES"):
		return jwt.ParseECPrivateKeyFromPEM(text)
	case method == "EdDSA":
		return jwt.ParseEdPrivateKeyFromPEM(text)
	}
	return jwt.ParseRSAPrivateKeyFromPEM(text)
}

// errVerifyOnly has etcd's text.
var errVerifyOnly = errors.New("auth: token signing attempted with verify-only key")

// issue returns a token for a user. The claims are etcd's.
func (j *JWT) issue(user string, revision uint64) (string, error) {
	if j.sign == nil {
		return "", errVerifyOnly
	}
	claims := jwt.MapClaims{"username": user, "revision": revision, "exp": time.Now().Add(j.ttl).Unix()}
	return jwt.NewWithClaims(j.method, claims).SignedString(j.sign)
}

// verify returns the user of a token, and the revision of users and roles for which it was made. The method is that of
// j, whatever the header of the token says.
func (j *JWT) verify(token string) (user string, revision uint64, err error) {
	claims := jwt.MapClaims{}
	_, err = jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return j.check, nil }, jwt.WithValidMethods([]string{j.method.Alg()}))
	if err != nil {
		return "", 0, coterie.ErrInvalidAuthToken
	}
	user, named := claims["username"].(string)
	number, counted := claims["revision"].(float64)
	if !named || !counted || number < 1 || number >= 1<<63 {
		return "", 0, coterie.ErrInvalidAuthToken
	}
	return user, uint64(number), nil
}
