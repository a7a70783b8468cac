// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie/etcdapi"
)

// The users of requests that have no valid token.
const (
	noUser   = ""
	badToken = "stranger"
)

// rootPassword is never changed, so that there is always a user that may do everything.
const rootPassword = "root's"

// Users are the users of a generator. A label stands for a token of each server.
type users struct {
	enabled bool
	labels  []string // of tokens, the newest last
	root    string   // the label of a valid token of root, if permissions are checked
	issued  int
	secrets map[string]string // the password of each user

	tokensAge bool // with each change of users
}

// as returns the context of a request by a user.
func (e *endpoint) as(ctx context.Context, label string) context.Context {
	switch label {
	case noUser:
		return ctx
	case badToken:
		return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, "stranger.1")
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, e.tokens[label])
}

// identity returns the user of the next request.
func (g *generator) identity() string {
	switch {
	case g.users == nil:
		return noUser
	case g.chance(12):
		return pick(g, noUser, badToken)
	case len(g.users.labels) > 0 && g.chance(2):
		recent := g.users.labels[max(0, len(g.users.labels)-6):]
		if g.chance(8) {
			recent = g.users.labels
		}
		return pick(g, recent...)
	}
	return g.rootUser()
}

// rootUser returns a user that may do everything.
func (g *generator) rootUser() string {
	if g.users == nil {
		return noUser
	}
	return g.users.root
}

// freshRoot is rootUser with a token that is not old.
func (c *comparison) freshRoot() string {
	if c.users != nil && c.users.enabled && c.users.tokensAge {
		c.doAs(noUser, c.authenticate("root", rootPassword))
	}
	return c.rootUser()
}

var (
	userNames = []string{"root", "u1", "u2", "u3"}
	roleNames = []string{"root", "r1", "r2", "r3"}
	passwords = []string{"p1", "p2", ""}
)

// withoutPassword is the user that may have no password. In etcd a change of its password has no effect.
const withoutPassword = "u3"

// oneOf returns one of some names, or rarely an empty or an unknown one.
func (g *generator) oneOf(names []string) string {
	if g.chance(20) {
		return pick(g, "", "none")
	}
	return pick(g, names...)
}

func (g *generator) password(user string) string {
	if user == "root" && !g.chance(10) {
		return rootPassword
	}
	return pick(g, passwords...)
}

// authenticate returns a request for a token.
func (g *generator) authenticate(name, password string) request {
	g.users.issued++
	label := fmt.Sprintf("%s %d", name, g.users.issued)
	q := &pb.AuthenticateRequest{Name: name, Password: password}
	return request{
		name: "Authenticate", pb: q,
		send: func(ctx context.Context, e *endpoint) (proto.Message, error) {
			r, err := e.auth.Authenticate(ctx, q)
			if err != nil {
				return nil, err
			}
			e.tokens[label] = r.Token
			if r.Token != "" {
				r.Token = "some"
			}
			return r, nil
		},
		after: func(proto.Message) {
			g.users.labels = append(g.users.labels, label)
			if name == "root" {
				g.users.root = label
			}
		},
	}
}

func auth(e *endpoint) pb.AuthClient { return e.auth }

// authRequest returns a request about users and roles.
func (g *generator) authRequest() request {
	user, role := g.oneOf(userNames), g.oneOf(roleNames)
	switch g.IntN(22) {
	case 0, 1, 20, 21:
		secret := g.users.secrets[user]
		if user == "root" || g.chance(3) {
			secret = g.password(user)
		}
		return g.authenticate(user, secret)
	case 2:
		q := g.userAdd(user)
		r := to("UserAdd", q, auth, pb.AuthClient.UserAdd)
		r.after = func(proto.Message) { g.users.secrets[user] = cmp.Or(q.Password, "p1") }
		return r
	case 3:
		if user == "root" && !g.users.enabled {
			user = "u1"
		}
		return to("UserDelete", &pb.AuthUserDeleteRequest{Name: user}, auth, pb.AuthClient.UserDelete)
	case 4:
		if user == "root" || user == withoutPassword {
			user = "u2"
		}
		q := &pb.AuthUserChangePasswordRequest{Name: user, Password: g.password(user)}
		if g.chance(4) {
			q.Password, q.HashedPassword = "", pick(g, hashOf("p1"), "not base64", base64.StdEncoding.EncodeToString([]byte("no hash")))
		}
		r := to("UserChangePassword", q, auth, pb.AuthClient.UserChangePassword)
		r.after = func(proto.Message) { g.users.secrets[user] = cmp.Or(q.Password, "p1") }
		return r
	case 5, 6:
		return to("UserGrantRole", &pb.AuthUserGrantRoleRequest{User: user, Role: role}, auth, pb.AuthClient.UserGrantRole)
	case 7:
		if user == "root" && !g.users.enabled {
			user = "u3"
		}
		return to("UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: user, Role: role}, auth, pb.AuthClient.UserRevokeRole)
	case 8:
		return to("RoleAdd", &pb.AuthRoleAddRequest{Name: role}, auth, pb.AuthClient.RoleAdd)
	case 9:
		if g.chance(2) {
			return to("RoleDelete", &pb.AuthRoleDeleteRequest{Role: role}, auth, pb.AuthClient.RoleDelete)
		}
		fallthrough
	case 10, 11:
		key, end := g.permittedRange()
		q := &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: &authpb.Permission{PermType: authpb.Permission_Type(g.IntN(3)), Key: key, RangeEnd: end}}
		if g.chance(30) {
			q.Perm = nil
		}
		return to("RoleGrantPermission", q, auth, pb.AuthClient.RoleGrantPermission)
	case 12:
		key, end := g.permittedRange()
		return to("RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: role, Key: key, RangeEnd: end}, auth, pb.AuthClient.RoleRevokePermission)
	case 13:
		return to("UserGet", &pb.AuthUserGetRequest{Name: user}, auth, pb.AuthClient.UserGet)
	case 14:
		return to("UserList", &pb.AuthUserListRequest{}, auth, pb.AuthClient.UserList)
	case 15:
		return to("RoleGet", &pb.AuthRoleGetRequest{Role: role}, auth, pb.AuthClient.RoleGet)
	case 16:
		return to("RoleList", &pb.AuthRoleListRequest{}, auth, pb.AuthClient.RoleList)
	case 17:
		if g.users.enabled && g.chance(8) {
			r := to("AuthDisable", &pb.AuthDisableRequest{}, auth, pb.AuthClient.AuthDisable)
			r.after = func(proto.Message) { g.users.enabled = false }
			return r
		}
		fallthrough
	case 18:
		if g.chance(4) {
			r := to("AuthEnable", &pb.AuthEnableRequest{}, auth, pb.AuthClient.AuthEnable)
			r.after = func(proto.Message) { g.users.enabled = true }
			return r
		}
	}
	return to("AuthStatus", &pb.AuthStatusRequest{}, auth, pb.AuthClient.AuthStatus)
}

// permittedRange returns a range for a permission. All ranges from a key have the same end: in etcd the order of several is
// not defined, and one that is granted again may be there twice.
func (g *generator) permittedRange() (key, end []byte) {
	key = g.key()
	switch {
	case len(key) == 0 || key[0] > 0 && g.chance(20):
		return key, []byte("\x00\x00") // invalid, since it is before the key
	case key[len(key)-1]%3 == 0:
		return key, []byte{0}
	case key[len(key)-1]%3 == 1:
		return key, append([]byte{key[0]}, "\xff\xff\xff"...)
	}
	return key, nil
}

func (g *generator) userAdd(name string) *pb.AuthUserAddRequest {
	q := &pb.AuthUserAddRequest{Name: name, Password: g.password(name)}
	switch g.IntN(8) {
	case 0:
		q.Options = &authpb.UserAddOptions{NoPassword: name == withoutPassword}
	case 1:
		q.Password, q.HashedPassword = "", hashOf("p1")
	}
	if name == "root" {
		q.Password, q.Options, q.HashedPassword = rootPassword, nil, ""
	}
	return q
}

// hashes are the hashes of passwords, which are the same for both servers.
var hashes = map[string]string{}

func hashOf(password string) string {
	if hashes[password] == "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			panic(err)
		}
		hashes[password] = base64.StdEncoding.EncodeToString(hash)
	}
	return hashes[password]
}

// usersTurns are the rare requests that end for users without permissions.
func (g *generator) usersTurns() []func() request {
	return []func() request{
		g.memberCalls, g.learner, g.alarmCall, g.noSpace, g.maintenanceCalls, g.state, g.shortLease, g.lock, g.strangeElection, g.snapshot,
		g.strangeFields, g.large,
	}
}

// rareUser returns the user of a rare request. Recipes and malformed requests have a valid token, because a node would
// report an invalid one first.
func (g *generator) rareUser(r request) string {
	switch r.name {
	case "lock", "strangeElection", "strangeFields", "alarmNOSPACE":
		return pick(g, noUser, g.rootUser())
	}
	return g.identity()
}

// tour sends the requests of root about users and roles that have an effect while permissions are checked.
func (c *comparison) tour() {
	add := func(q *pb.AuthUserAddRequest) request { return to("UserAdd", q, auth, pb.AuthClient.UserAdd) }
	change := func(q *pb.AuthUserChangePasswordRequest) request {
		return to("UserChangePassword", q, auth, pb.AuthClient.UserChangePassword)
	}
	key, end := []byte("b"), []byte("c")
	for _, r := range []request{
		add(&pb.AuthUserAddRequest{Name: "u1", HashedPassword: hashOf("p1")}),
		add(&pb.AuthUserAddRequest{Name: withoutPassword, Options: &authpb.UserAddOptions{NoPassword: true}}),
		c.authenticate("u1", "p1"), c.authenticate("u1", ""), c.authenticate(withoutPassword, ""), c.authenticate(withoutPassword, "p1"),
		change(&pb.AuthUserChangePasswordRequest{Name: "u1", HashedPassword: hashOf("p2")}),
		c.authenticate("u1", "p1"), c.authenticate("u1", "p2"),
		change(&pb.AuthUserChangePasswordRequest{Name: "u1", Password: "p1"}), c.authenticate("u1", "p1"),
		to("RoleAdd", &pb.AuthRoleAddRequest{Name: "r1"}, auth, pb.AuthClient.RoleAdd),
		to("UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "u1", Role: "r1"}, auth, pb.AuthClient.UserGrantRole),
		grantPermission(authpb.Permission_READ, key, end), grantPermission(authpb.Permission_WRITE, []byte("a"), nil),
		to("RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r1"}, auth, pb.AuthClient.RoleGrantPermission),
		to("RoleGet", &pb.AuthRoleGetRequest{Role: "r1"}, auth, pb.AuthClient.RoleGet),
		to("RoleGet", &pb.AuthRoleGetRequest{Role: "root"}, auth, pb.AuthClient.RoleGet),
	} {
		c.doAs(c.rootUser(), r)
	}
	u1 := c.users.labels[len(c.users.labels)-1]
	for _, user := range []string{noUser, badToken, u1, c.users.root} {
		for _, q := range []*pb.WatchCreateRequest{{Key: key, RangeEnd: end}, {Key: key}, {Key: []byte("a")}, {Key: key, RangeEnd: []byte{0}}, {}} {
			c.doAs(user, createdWatch(q))
		}
		c.doAs(user, c.memberCalls())
		c.doAs(user, c.state())
		c.doAs(user, c.maintenanceCalls())
	}
	for range 2 { // the second time there is nothing to revoke
		for _, r := range []request{
			to("RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: "r1", Key: key, RangeEnd: end}, auth, pb.AuthClient.RoleRevokePermission),
			to("UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "u1", Role: "r1"}, auth, pb.AuthClient.UserRevokeRole),
		} {
			c.doAs(c.rootUser(), r)
		}
	}
	for _, names := range [][2]string{{"u1", "r1"}, {"u1", "r1"}, {"", ""}, {"root", "root"}} {
		for _, r := range []request{
			to("UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: names[0], Role: names[1]}, auth, pb.AuthClient.UserRevokeRole),
			to("RoleDelete", &pb.AuthRoleDeleteRequest{Role: names[1]}, auth, pb.AuthClient.RoleDelete),
			to("UserDelete", &pb.AuthUserDeleteRequest{Name: names[0]}, auth, pb.AuthClient.UserDelete),
		} {
			c.doAs(c.rootUser(), r)
		}
	}
	disable := to("AuthDisable", &pb.AuthDisableRequest{}, auth, pb.AuthClient.AuthDisable)
	for _, user := range []string{noUser, badToken, u1, c.users.root, c.users.root} {
		c.doAs(user, disable)
	}
	c.doAs(noUser, to("AuthEnable", &pb.AuthEnableRequest{}, auth, pb.AuthClient.AuthEnable))
	c.doAs(u1, disable) // the token has ended
	c.doAs(noUser, c.authenticate("root", rootPassword))
	for _, name := range []string{"", "r1", "r1"} {
		c.doAs(c.rootUser(), to("RoleAdd", &pb.AuthRoleAddRequest{Name: name}, auth, pb.AuthClient.RoleAdd))
	}
}

func grantPermission(kind authpb.Permission_Type, key, end []byte) request {
	q := &pb.AuthRoleGrantPermissionRequest{Name: "r1", Perm: &authpb.Permission{PermType: kind, Key: key, RangeEnd: end}}
	return to("RoleGrantPermission", q, auth, pb.AuthClient.RoleGrantPermission)
}

// createdWatch returns a request. Its answer is the first one of a watch.
func createdWatch(q *pb.WatchCreateRequest) request {
	return scripted("Watch", q, func(ctx context.Context, e *endpoint, s *script) {
		stream, err := e.watch.Watch(ctx)
		if err == nil {
			err = sent(stream.Send(createWatch(q)))
		}
		receive(s, stream, err)
		if err == nil {
			s.say(stream.CloseSend())
		}
	})
}

// compareUsers sends requests by users.
func (c *comparison) compareUsers(count int, rare bool) {
	for c.sent < count {
		switch n := c.IntN(100); {
		case n < 30:
			c.do(c.authRequest())
		case n < 60:
			c.do(c.write())
		case n < 90:
			c.do(c.read())
		case n < 92:
			c.do(c.compact())
		case n < 94 && rare:
			r := c.rare()
			c.doAs(c.rareUser(r), r)
		default:
			c.watchEpisode()
		}
		if c.users.enabled && (c.users.root == noUser || c.users.tokensAge && c.chance(3)) {
			c.doAs(noUser, c.authenticate("root", rootPassword))
		}
		if !c.users.enabled {
			c.users.root = noUser // earlier tokens are invalid
		}
	}
	c.Logf("%d requests, revision %d: %v", c.sent, c.rev, c.kinds)
}

// ofUsers are the parts of the protocol about users.
var ofUsers = wanted{
	services: services(pb.File_rpc_proto, "Auth"),
	errors: append(texts(
		rpctypes.ErrGRPCRootUserNotExist, rpctypes.ErrGRPCRootRoleNotExist, rpctypes.ErrGRPCUserAlreadyExist, rpctypes.ErrGRPCUserEmpty,
		rpctypes.ErrGRPCUserNotFound, rpctypes.ErrGRPCRoleAlreadyExist, rpctypes.ErrGRPCRoleNotFound, rpctypes.ErrGRPCRoleEmpty,
		rpctypes.ErrGRPCAuthFailed, rpctypes.ErrGRPCPermissionNotGiven, rpctypes.ErrGRPCPermissionDenied, rpctypes.ErrGRPCRoleNotGranted,
		rpctypes.ErrGRPCPermissionNotGranted, rpctypes.ErrGRPCAuthNotEnabled, rpctypes.ErrGRPCInvalidAuthToken,
		rpctypes.ErrGRPCInvalidAuthMgmt,
	), "cancelled: rpc error: code = PermissionDenied", "cancelled: rpc error: code = Unauthenticated",
		"cancelled: rpc error: code = InvalidArgument desc = etcdserver: user name is empty", "no password user"),
}

// A node answers the requests of users as etcd does, while users, roles and permissions change.
func TestSameAnswersToUsers(t *testing.T) {
	etcd := dialCovered(t, startEtcd(t, cheap))
	c := newComparison(t, etcd, dial(t, "coterie", startNode(t, etcdapi.WithBcryptCost(bcrypt.MinCost))))
	c.users = &users{secrets: map[string]string{}}
	c.protect()
	c.tour()
	c.compareUsers(requests(), true)
	if enough() {
		etcd.coverage.check(t, ofUsers)
	}
}

// A follower answers the requests of users as etcd does.
func TestSameAnswersToUsersOfFollower(t *testing.T) {
	t.Parallel()
	node := endpointOfFollower(t, etcdapi.WithBcryptCost(bcrypt.MinCost))
	c := newComparison(t, dial(t, "etcd", startEtcd(t, cheap)), node)
	c.users = &users{secrets: map[string]string{}}
	c.protect()
	c.compareUsers(requests()/3, false)
}

// With JSON web tokens, every change of users and roles makes all earlier tokens old.
func TestSameAnswersToJSONWebTokens(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte("a secret"), 0o600))
	option := "jwt,sign-method=HS256,ttl=1h,priv-key=" + key
	etcd := dialCovered(t, startEtcd(t, cheap, func(cfg *embed.Config) { cfg.AuthToken = option }))
	jwt, err := etcdapi.LoadJWT(option)
	require.NoError(t, err)
	c := newComparison(t, etcd, dial(t, "coterie", startNode(t, etcdapi.WithBcryptCost(bcrypt.MinCost), etcdapi.WithJWT(jwt))))
	c.users = &users{secrets: map[string]string{}, tokensAge: true}
	c.protect()
	c.compareUsers(requests()/3, true)
	require.Positive(t, etcd.coverage.count("error", status.Convert(rpctypes.ErrGRPCAuthOldRevision).Message()))
}

// cheap makes the hashes of passwords cheap.
func cheap(cfg *embed.Config) { cfg.BcryptCost = uint(bcrypt.MinCost) }

// protect makes the servers check permissions, which needs a user root with the role root.
func (c *comparison) protect() {
	enable := to("AuthEnable", &pb.AuthEnableRequest{}, auth, pb.AuthClient.AuthEnable)
	enable.after = func(proto.Message) { c.users.enabled = true }
	for _, r := range []request{
		enable, c.authenticate("root", rootPassword),
		to("UserAdd", &pb.AuthUserAddRequest{Name: "root", Password: rootPassword}, auth, pb.AuthClient.UserAdd),
		enable,
		to("UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}, auth, pb.AuthClient.UserGrantRole),
		enable,
		c.authenticate("root", rootPassword),
	} {
		c.doAs(noUser, r)
	}
}
