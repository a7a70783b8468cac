// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// last returns the error at the end of a sequence.
func last[T any](seq func(yield func(T, error) bool)) (err error) {
	for _, err = range seq {
	}
	return err
}

// firstOf returns the first pair of a sequence.
func firstOf[T any](seq func(yield func(T, error) bool)) (r T, err error) {
	for r, err = range seq {
		break
	}
	return r, err
}

func transact(kv coterie.KV, cmps []coterie.Comparison, then, els []coterie.Op) error {
	return errOf(kv.Txn(context.Background()).If(cmps...).Then(then...).Else(els...).Commit())
}

// The users of the table below. Each has the permissions of a column.
//
//	none      no user
//	nobody    a user that does not exist
//	plain     a user without roles
//	reader    READ of "a" to "c"
//	writer    WRITE of "a" to "c"
//	both      READ of "a" to "b" by one role, READWRITE of "b" to "c" by another, WRITE of "a" to "b" by a third
//	narrow    READWRITE of the keys "a" and "b" alone
//	root      the role root
var tableUsers = []string{"", "nobody", "plain", "reader", "writer", "both", "narrow", "root"}

// A table is a node with those users, seen by one of them.
type table struct {
	*coterie.UserView
	ctx    context.Context
	n      *coterie.Node
	none   coterie.LeaseID // has no keys
	inside coterie.LeaseID // has the key "a"
	wide   coterie.LeaseID // has the keys "a1" and "z"
}

func newTable(t *testing.T, user string, enabled bool) table {
	n := open(t)
	a := administrator{t, n}
	ctx := t.Context()
	f := table{coterie.NewUserView(n, user), ctx, n, 1, 2, 3}
	for _, id := range []coterie.LeaseID{f.none, f.inside, f.wide} {
		a.must(n.Grant(ctx, time.Hour, coterie.WithGrantID(id)))
	}
	a.must(n.Put(ctx, "a", "v", coterie.WithLease(f.inside)))
	a.must(n.Put(ctx, "a1", "v", coterie.WithLease(f.wide)))
	a.must(n.Put(ctx, "z", "v", coterie.WithLease(f.wide)))
	a.must(n.UserAdd(ctx, "plain"))
	a.user("reader", coterie.Permission{Type: coterie.PermRead, Key: "a", RangeEnd: "c"})
	a.user("writer", coterie.Permission{Type: coterie.PermWrite, Key: "a", RangeEnd: "c"})
	a.user("both", coterie.Permission{Type: coterie.PermRead, Key: "a", RangeEnd: "b"})
	for role, p := range map[string]coterie.Permission{
		"second": {Type: coterie.PermReadWrite, Key: "b", RangeEnd: "c"}, "third": {Type: coterie.PermWrite, Key: "a", RangeEnd: "b"},
	} {
		a.must(n.RoleAdd(ctx, role))
		a.grant(role, p)
		a.must(n.UserGrantRole(ctx, "both", role))
	}
	a.user("narrow", coterie.Permission{Type: coterie.PermReadWrite, Key: "a"}, coterie.Permission{Type: coterie.PermReadWrite, Key: "b"})
	a.enable()
	if !enabled {
		a.must(n.AuthDisable(ctx))
	}
	return f
}

// Each row is a call, and the users that may make it; the names of others get the error that the row says. They are
// etcd's.
func TestPermissionsOfCalls(t *testing.T) {
	const denied, empty, unknown = "denied", "empty", "unknown"
	everyone := []string{"", "nobody", "plain", "reader", "writer", "both", "narrow", "root"}
	existing := []string{"plain", "reader", "writer", "both", "narrow", "root"}
	root := []string{"root"}
	get, put, del := coterie.OpGet, coterie.OpPut, coterie.OpDelete
	for name, row := range map[string]struct {
		call    func(f table) error
		allowed []string
		nobody  string // the error of a user that does not exist; empty: denied
	}{
		"get":              {func(f table) error { return errOf(f.Get(f.ctx, "a")) }, []string{"reader", "both", "narrow", "root"}, ""},
		"get serializable": {func(f table) error { return errOf(f.Get(f.ctx, "a", coterie.WithSerializable())) }, []string{"reader", "both", "narrow", "root"}, ""},
		"get another":      {func(f table) error { return errOf(f.Get(f.ctx, "c")) }, root, ""},
		"get a range":      {func(f table) error { return errOf(f.Get(f.ctx, "a", coterie.WithRange("c"))) }, []string{"reader", "both", "root"}, ""},
		"get more":         {func(f table) error { return errOf(f.Get(f.ctx, "a", coterie.WithRange("c\x00"))) }, root, ""},
		"get from a key":   {func(f table) error { return errOf(f.Get(f.ctx, "a", coterie.WithFromKey())) }, root, ""},
		"get all":          {func(f table) error { return errOf(f.Get(f.ctx, "", coterie.WithPrefix())) }, root, ""},
		"count": {func(f table) error {
			return errOf(f.Get(f.ctx, "a", coterie.WithRange("z"), coterie.WithCountOnly()))
		}, root, ""},
		"get an empty range": {func(f table) error { return errOf(f.Get(f.ctx, "z", coterie.WithRange("a"))) }, root, ""},
		"range":              {func(f table) error { return last(f.Range(f.ctx, "a", coterie.WithRange("c"))) }, []string{"reader", "both", "root"}, ""},
		"range of more":      {func(f table) error { return last(f.Range(f.ctx, "a", coterie.WithFromKey())) }, root, ""},
		"put":                {func(f table) error { return errOf(f.Put(f.ctx, "a", "v")) }, []string{"writer", "both", "narrow", "root"}, ""},
		"put another":        {func(f table) error { return errOf(f.Put(f.ctx, "c", "v")) }, root, ""},
		"T50 put WithPrevKV": {func(f table) error { return errOf(f.Put(f.ctx, "a", "v", coterie.WithPrevKV())) }, []string{"both", "narrow", "root"}, ""},
		"put with no lease":  {func(f table) error { return errOf(f.Put(f.ctx, "a", "v", coterie.WithIgnoreLease())) }, []string{"writer", "both", "narrow", "root"}, ""},
		"put with a free lease": {func(f table) error {
			return errOf(f.Put(f.ctx, "a", "v", coterie.WithLease(f.none)))
		}, []string{"writer", "both", "narrow", "root"}, ""},
		"T50 put with a lease of other keys": {func(f table) error {
			return errOf(f.Put(f.ctx, "a", "v", coterie.WithLease(f.wide)))
		}, root, ""},
		"delete":                {func(f table) error { return errOf(f.Delete(f.ctx, "a")) }, []string{"writer", "both", "narrow", "root"}, ""},
		"delete a range":        {func(f table) error { return errOf(f.Delete(f.ctx, "a", coterie.WithRange("c"))) }, []string{"writer", "both", "root"}, ""},
		"delete all":            {func(f table) error { return errOf(f.Delete(f.ctx, "", coterie.WithPrefix())) }, root, ""},
		"T50 delete WithPrevKV": {func(f table) error { return errOf(f.Delete(f.ctx, "a", coterie.WithPrevKV())) }, []string{"both", "narrow", "root"}, ""},
		"compare": {func(f table) error {
			return transact(f, []coterie.Comparison{coterie.Compare(coterie.Version("a"), coterie.Greater, 0)}, nil, nil)
		}, []string{"reader", "both", "narrow", "root"}, ""},
		"compare and put": {func(f table) error {
			return transact(f, []coterie.Comparison{coterie.Compare(coterie.Version("a"), coterie.Greater, 0)}, []coterie.Op{put("a", "v")}, nil)
		}, []string{"both", "narrow", "root"}, ""},
		"compare another": {func(f table) error {
			return transact(f, []coterie.Comparison{coterie.Compare(coterie.Version("z"), coterie.Greater, 0)}, []coterie.Op{put("a", "v")}, nil)
		}, root, ""},
		"T27 in the branch that does not run": {func(f table) error {
			return transact(f, nil, []coterie.Op{put("a", "v")}, []coterie.Op{put("z", "v")})
		}, root, ""},
		"get in a transaction": {func(f table) error {
			return transact(f, nil, []coterie.Op{get("a"), get("b")}, nil)
		}, []string{"reader", "both", "narrow", "root"}, ""},
		"get in a serializable one": {func(f table) error {
			return transact(f, nil, []coterie.Op{get("z", coterie.WithSerializable())}, nil)
		}, root, ""},
		"get after a put": {func(f table) error {
			return transact(f, nil, []coterie.Op{put("a", "v"), get("b")}, nil)
		}, []string{"both", "narrow", "root"}, ""},
		"T50 nested put": {func(f table) error {
			return transact(f, nil, []coterie.Op{coterie.OpTxn(nil, []coterie.Op{put("z", "v")}, nil)}, nil)
		}, root, ""},
		"T50 nested put WithPrevKV": {func(f table) error {
			return transact(f, nil, []coterie.Op{coterie.OpTxn(nil, []coterie.Op{put("a", "v", coterie.WithPrevKV())}, nil)}, nil)
		}, []string{"both", "narrow", "root"}, ""},
		"T50 nested delete": {func(f table) error {
			return transact(f, nil, nil, []coterie.Op{coterie.OpTxn(nil, nil, []coterie.Op{del("a", coterie.WithRange("c"))})})
		}, []string{"writer", "both", "root"}, ""},
		"T50 nested compare": {func(f table) error {
			nested := coterie.OpTxn([]coterie.Comparison{coterie.Compare(coterie.Value("z"), coterie.Equal, "")}, nil, nil)
			return transact(f, nil, []coterie.Op{nested}, nil)
		}, root, ""},
		"T50 nested put with a lease": {func(f table) error {
			return transact(f, nil, []coterie.Op{coterie.OpTxn(nil, []coterie.Op{put("a", "v", coterie.WithLease(f.wide))}, nil)}, nil)
		}, root, ""},
		"an empty transaction": {func(f table) error { return transact(f, nil, nil, nil) }, everyone, ""},
		"watch":                {func(f table) error { return errOf(firstOf(f.Watch(f.ctx, "a", coterie.WithCreatedNotify()))) }, []string{"reader", "both", "narrow", "root"}, ""},
		"watch a range": {func(f table) error {
			return errOf(firstOf(f.Watch(f.ctx, "a", coterie.WithRange("c"), coterie.WithCreatedNotify())))
		}, []string{"reader", "both", "root"}, ""},
		"T43 watch from a key": {func(f table) error {
			return errOf(firstOf(f.Watch(f.ctx, "a", coterie.WithFromKey(), coterie.WithCreatedNotify())))
		}, root, ""},
		"T43 watch all keys": {func(f table) error {
			return errOf(firstOf(f.Watch(f.ctx, "", coterie.WithPrefix(), coterie.WithCreatedNotify())))
		}, root, ""},
		"watch on a channel": {func(f table) error {
			ctx, cancel := context.WithCancel(f.ctx)
			defer cancel()
			return (<-f.WatchChan(ctx, "b", coterie.WithCreatedNotify())).Err
		}, []string{"reader", "both", "narrow", "root"}, ""},
		"grant":                       {func(f table) error { return errOf(f.Grant(f.ctx, time.Hour)) }, existing, ""},
		"revoke a lease without keys": {func(f table) error { return errOf(f.Revoke(f.ctx, f.none)) }, existing, ""},
		"revoke":                      {func(f table) error { return errOf(f.Revoke(f.ctx, f.inside)) }, []string{"writer", "both", "narrow", "root"}, ""},
		"T50 revoke of other keys":    {func(f table) error { return errOf(f.Revoke(f.ctx, f.wide)) }, root, ""},
		"keep alive without keys":     {func(f table) error { return errOf(f.KeepAliveOnce(f.ctx, f.none)) }, existing, ""},
		"keep alive":                  {func(f table) error { return errOf(f.KeepAliveOnce(f.ctx, f.inside)) }, []string{"writer", "both", "narrow", "root"}, ""},
		"keep alive other keys":       {func(f table) error { return errOf(f.KeepAliveOnce(f.ctx, f.wide)) }, root, ""},
		"keep alive for long": {func(f table) error {
			ctx, cancel := context.WithCancelCause(f.ctx)
			cancel(errors.New("enough"))
			if err := errOf(f.KeepAliveOnce(f.ctx, f.wide)); err != nil {
				return f.KeepAlive(f.ctx, f.wide)
			}
			if err := f.KeepAlive(ctx, f.wide); err.Error() != "enough" {
				return err
			}
			return nil
		}, root, ""},
		"time to live without keys": {func(f table) error { return errOf(f.TimeToLive(f.ctx, f.none)) }, existing, ""},
		"time to live":              {func(f table) error { return errOf(f.TimeToLive(f.ctx, f.inside)) }, []string{"reader", "both", "narrow", "root"}, ""},
		"time to live, other keys":  {func(f table) error { return errOf(f.TimeToLive(f.ctx, f.wide)) }, root, ""},
		"leases":                    {func(f table) error { return errOf(f.Leases(f.ctx)) }, root, ""},
		"leases without other keys": {func(f table) error {
			if _, err := f.n.Delete(f.ctx, "z"); err != nil {
				return err
			}
			return errOf(f.Leases(f.ctx))
		}, []string{"reader", "both", "root"}, ""},
		"compact":                        {func(f table) error { return errOf(f.Compact(f.ctx, 2)) }, root, unknown},
		"check":                          {func(f table) error { return f.Check(f.ctx) }, root, unknown},
		"hash":                           {func(f table) error { return errOf(f.Hash(f.ctx, 0)) }, root, unknown},
		"backup":                         {func(f table) error { return errOf(f.Backup(f.ctx, io.Discard)) }, root, unknown},
		"alarms":                         {func(f table) error { return errOf(f.Alarms(f.ctx)) }, existing, ""},
		"local alarms":                   {func(f table) error { return errOf(f.Alarms(f.ctx, coterie.WithSerializable())) }, existing, ""},
		"raise an alarm":                 {func(f table) error { return errOf(f.RaiseAlarm(f.ctx, coterie.Alarm{Kind: coterie.AlarmCorrupt})) }, root, unknown},
		"clear an alarm":                 {func(f table) error { return errOf(f.ClearAlarm(f.ctx, coterie.Alarm{Kind: coterie.AlarmCorrupt})) }, root, unknown},
		"require a user":                 {func(f table) error { return f.RequireUser(f.ctx) }, existing, ""},
		"require root":                   {func(f table) error { return f.RequireRoot(f.ctx) }, root, unknown},
		"require a user locally":         {func(f table) error { return f.RequireUser(f.ctx, coterie.WithSerializable()) }, existing, ""},
		"require root locally":           {func(f table) error { return f.RequireRoot(f.ctx, coterie.WithSerializable()) }, root, unknown},
		"require READ":                   {func(f table) error { return f.RequireRead("a", coterie.WithRange("c")) }, []string{"reader", "both", "root"}, ""},
		"require READ of a key":          {func(f table) error { return f.RequireRead("a") }, []string{"reader", "both", "narrow", "root"}, ""},
		"require READ of an empty range": {func(f table) error { return f.RequireRead("c", coterie.WithRange("a")) }, root, ""},
		"status of auth":                 {func(f table) error { return errOf(f.AuthStatus(f.ctx)) }, everyone, ""},
		"enable":                         {func(f table) error { return errOf(f.AuthEnable(f.ctx)) }, root, unknown},
		"disable":                        {func(f table) error { return errOf(f.AuthDisable(f.ctx)) }, root, unknown},
		"add a user":                     {func(f table) error { return errOf(f.UserAdd(f.ctx, "new")) }, root, unknown},
		"delete a user":                  {func(f table) error { return errOf(f.UserDelete(f.ctx, "plain")) }, root, unknown},
		"change a password":              {func(f table) error { return errOf(f.UserChangePassword(f.ctx, "plain", nil)) }, root, unknown},
		"grant a role":                   {func(f table) error { return errOf(f.UserGrantRole(f.ctx, "plain", "root")) }, root, unknown},
		"revoke a role":                  {func(f table) error { return errOf(f.UserRevokeRole(f.ctx, "reader", "reader")) }, root, unknown},
		"get a user":                     {func(f table) error { return errOf(f.UserGet(f.ctx, "reader")) }, []string{"reader", "root"}, unknown},
		"list users":                     {func(f table) error { return errOf(f.UserList(f.ctx)) }, root, unknown},
		"add a role":                     {func(f table) error { return errOf(f.RoleAdd(f.ctx, "new")) }, root, unknown},
		"delete a role":                  {func(f table) error { return errOf(f.RoleDelete(f.ctx, "writer")) }, root, unknown},
		"grant a permission":             {func(f table) error { return errOf(f.RoleGrantPermission(f.ctx, "reader", coterie.PermWrite, "k")) }, root, unknown},
		"revoke a permission": {func(f table) error {
			return errOf(f.RoleRevokePermission(f.ctx, "reader", "a", coterie.WithRange("c")))
		}, root, unknown},
		"get a role": {func(f table) error { return errOf(f.RoleGet(f.ctx, "reader")) }, []string{"reader", "root"}, unknown},
		"list roles": {func(f table) error { return errOf(f.RoleList(f.ctx)) }, root, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, row.call(newTable(t, "reader", false)), "permissions are not checked")
			for _, user := range tableUsers {
				f := newTable(t, user, true)
				a := administrator{t, f.n}
				want := denied
				switch {
				case slices.Contains(row.allowed, user):
					want = ""
				case user == "":
					want = empty
				case user == "nobody" && row.nobody != "":
					want = row.nobody
				}
				keys, revision := f.n.Status().Revision, a.revision()
				err := row.call(f)
				if want == "" {
					require.NoError(t, err, user)
					continue
				}
				require.ErrorIs(t, err, map[string]error{
					denied: coterie.ErrPermissionDenied, empty: coterie.ErrUserEmpty, unknown: coterie.ErrUserNotFound,
				}[want], user)
				if name != "leases without other keys" {
					require.Equal(t, keys, f.n.Status().Revision, "nothing has changed")
				}
				require.Equal(t, revision, a.revision(), "nothing has changed")
			}
		})
	}
}

// If the user of a view authenticated before a change of users, the view fails until the user authenticates
// again, although the permission is the same. Without a revision it goes on.
func TestT48_OldAuthRevisionIsRejected(t *testing.T) {
	n := open(t)
	a := administrator{t, n}
	ctx := t.Context()
	a.user("alice", coterie.Permission{Type: coterie.PermReadWrite, Key: "k"})
	a.enable()
	alice := coterie.NewUserView(n, "alice")
	old := alice.WithAuthRevision(a.revision())
	put(t, n, "k", "v")
	lease, err := n.Grant(ctx, time.Hour, coterie.WithGrantID(7))
	require.NoError(t, err)
	a.must(n.Put(ctx, "k", "v", coterie.WithLease(lease.ID)))
	calls := map[string]func(u *coterie.UserView) error{
		"put": func(u *coterie.UserView) error { return errOf(u.Put(ctx, "k", "v", coterie.WithIgnoreLease())) },
		"get": func(u *coterie.UserView) error { return errOf(u.Get(ctx, "k")) },
		"get serializable": func(u *coterie.UserView) error {
			return errOf(u.Get(ctx, "k", coterie.WithSerializable()))
		},
		"range":          func(u *coterie.UserView) error { return last(u.Range(ctx, "k")) },
		"txn":            func(u *coterie.UserView) error { return transact(u, nil, []coterie.Op{coterie.OpGet("k")}, nil) },
		"watch":          func(u *coterie.UserView) error { return errOf(firstOf(u.Watch(ctx, "k", coterie.WithCreatedNotify()))) },
		"keep alive":     func(u *coterie.UserView) error { return errOf(u.KeepAliveOnce(ctx, 7)) },
		"time to live":   func(u *coterie.UserView) error { return errOf(u.TimeToLive(ctx, 7)) },
		"leases":         func(u *coterie.UserView) error { return errOf(u.Leases(ctx)) },
		"in a namespace": func(u *coterie.UserView) error { return errOf(u.Namespace("").Get(ctx, "k")) },
	}
	for name, call := range calls {
		require.NoError(t, call(old), name)
	}
	a.must(n.RoleAdd(ctx, "unrelated"))
	for name, call := range calls {
		require.ErrorIs(t, call(old), coterie.ErrAuthOldRevision, name)
		require.NoError(t, call(alice), name)
		require.NoError(t, call(old.WithAuthRevision(a.revision())), name)
		require.NoError(t, call(old.WithAuthRevision(0)), name)
		require.NoError(t, call(old.WithAuthRevision(1000)), name)
	}
	require.ErrorIs(t, errOf(old.Revoke(ctx, 7)), coterie.ErrAuthOldRevision)
	require.NoError(t, errOf(old.Grant(ctx, time.Hour)), "needs no permission")
	require.NoError(t, errOf(old.UserGet(ctx, "alice")), "needs no permission")
	root := coterie.NewUserView(n, coterie.Root).WithAuthRevision(1)
	require.NoError(t, errOf(root.UserAdd(ctx, "bob")), "as in etcd, the present role counts")
	a.must(n.AuthDisable(ctx))
	require.NoError(t, errOf(old.Put(ctx, "k", "v")))
}

// Nobody has a user until the program names one.
func TestT53_NoUserIsNoGuest(t *testing.T) {
	n := open(t)
	a := administrator{t, n}
	a.user("guest", coterie.Permission{Type: coterie.PermReadWrite, Key: "\x00", RangeEnd: "\x00"})
	a.enable()
	require.ErrorIs(t, errOf(coterie.NewUserView(n, "").Get(t.Context(), "k")), coterie.ErrUserEmpty)
	require.NoError(t, errOf(coterie.NewUserView(n, "guest").Get(t.Context(), "k")))
	require.NoError(t, errOf(n.Get(t.Context(), "k")), "the program itself")
}

// A watch ends when its user loses the permission, also while nothing happens to its keys, and yields nothing that
// was written after that. It goes on through other changes of users and roles.
func TestWatchEndsWithoutPermission(t *testing.T) {
	for name, c := range map[string]struct {
		take func(a administrator)
		err  error
	}{
		"the permission is revoked": {func(a administrator) { a.must(a.RoleRevokePermission(a.Context(), "alice", "k", coterie.WithPrefix())) }, coterie.ErrPermissionDenied},
		"the role is revoked":       {func(a administrator) { a.must(a.UserRevokeRole(a.Context(), "alice", "alice")) }, coterie.ErrPermissionDenied},
		"the role is deleted":       {func(a administrator) { a.must(a.RoleDelete(a.Context(), "alice")) }, coterie.ErrPermissionDenied},
		"the user is deleted":       {func(a administrator) { a.must(a.UserDelete(a.Context(), "alice")) }, coterie.ErrPermissionDenied},
		"only writing is allowed": {func(a administrator) {
			a.must(a.RoleGrantPermission(a.Context(), "alice", coterie.PermWrite, "k", coterie.WithPrefix()))
		}, coterie.ErrPermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, cluster *coterietest.Cluster) {
				n := cluster.Follower()
				a := administrator{t, cluster.Leader()}
				a.user("alice")
				a.must(a.RoleGrantPermission(t.Context(), "alice", coterie.PermRead, "k", coterie.WithPrefix()))
				a.enable()
				cluster.WaitRevision(1)
				require.NoError(t, n.Ready(t.Context()))
				alice := coterie.NewUserView(n, "alice").WithAuthRevision(a.revision())
				idle := alice.WatchChan(t.Context(), "k", coterie.WithPrefix())
				in := alice.Namespace("k/").WatchChan(t.Context(), "", coterie.WithPrefix())
				synctest.Wait()
				put(t, n, "k/1", "v")
				require.Equal(t, "k/1", (<-idle).Events[0].KV.Key)
				require.Equal(t, "1", (<-in).Events[0].KV.Key)
				a.must(a.RoleAdd(t.Context(), "unrelated"))
				put(t, n, "k/2", "v")
				require.Equal(t, "k/2", (<-idle).Events[0].KV.Key, "old revisions matter at the beginning only")
				require.Equal(t, "2", (<-in).Events[0].KV.Key)

				c.take(a)
				for _, results := range []<-chan coterie.WatchResult{idle, in} {
					r := <-results
					require.ErrorIs(t, r.Err, c.err)
					require.Empty(t, r.Events)
					_, open := <-results
					require.False(t, open)
				}
			})
		})
	}
}

// A slow watch that has not yielded a revision when the permission ends does not yield it later.
func TestSlowWatchEndsWithoutPermission(t *testing.T) {
	n := open(t)
	a := administrator{t, n}
	a.user("alice", coterie.Permission{Type: coterie.PermRead, Key: "k"})
	a.enable()
	var seen []string
	var err error
	for r, e := range coterie.NewUserView(n, "alice").Watch(t.Context(), "k", coterie.WithCreatedNotify()) {
		if err = e; e != nil {
			break
		}
		for _, event := range r.Events {
			seen = append(seen, event.KV.Value)
		}
		if r.Created {
			put(t, n, "k", "before")
		} else {
			put(t, n, "k", "unseen")
			a.must(n.UserRevokeRole(t.Context(), "alice", "alice"))
			put(t, n, "k", "secret")
		}
	}
	require.ErrorIs(t, err, coterie.ErrPermissionDenied)
	require.Equal(t, []string{"before"}, seen)
}

// A namespace of a view has the permissions of its user in the keys of the store, not in its own.
func TestNamespaceHasPermissionsOfUser(t *testing.T) {
	n := open(t)
	a := administrator{t, n}
	ctx := t.Context()
	a.user("alice", coterie.Permission{Type: coterie.PermReadWrite, Key: "app/", RangeEnd: "app0"})
	a.enable()
	alice := coterie.NewUserView(n, "alice")
	app, other := alice.Namespace("app/"), alice.Namespace("other/")
	require.NoError(t, errOf(app.Put(ctx, "k", "v")))
	for _, key := range []string{"k", "app/k"} {
		require.ErrorIs(t, errOf(other.Put(ctx, key, "v")), coterie.ErrPermissionDenied)
		require.ErrorIs(t, errOf(other.Get(ctx, key)), coterie.ErrPermissionDenied)
		require.ErrorIs(t, last(other.Range(ctx, key)), coterie.ErrPermissionDenied)
		require.ErrorIs(t, errOf(firstOf(other.Watch(ctx, key, coterie.WithCreatedNotify()))), coterie.ErrPermissionDenied)
	}
	r, err := app.Get(ctx, "", coterie.WithPrefix())
	require.NoError(t, err)
	require.Equal(t, "k", r.KVs[0].Key)
	require.NoError(t, last(app.Range(ctx, "", coterie.WithFromKey())))
	require.NoError(t, errOf(firstOf(app.Watch(ctx, "", coterie.WithPrefix(), coterie.WithCreatedNotify()))))
	require.ErrorIs(t, errOf(alice.Namespace("app").Get(ctx, "", coterie.WithPrefix())), coterie.ErrPermissionDenied)
	require.ErrorIs(t, errOf(app.Compact(ctx, 2)), coterie.ErrPermissionDenied)
}

// A program hands a part of it the view of a user, which may do as much as its roles allow.
func ExampleNewUserView() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()
	check := func(_ any, err error) {
		if err != nil {
			panic(err)
		}
	}
	check(n.UserAdd(ctx, coterie.Root))
	check(n.UserGrantRole(ctx, coterie.Root, coterie.Root))
	check(n.RoleAdd(ctx, "plugin"))
	check(n.RoleGrantPermission(ctx, "plugin", coterie.PermReadWrite, "plugin/", coterie.WithPrefix()))
	check(n.UserAdd(ctx, "weather"))
	check(n.UserGrantRole(ctx, "weather", "plugin"))
	check(n.AuthEnable(ctx))

	var plugin coterie.KV = coterie.NewUserView(n, "weather")
	_, err := plugin.Put(ctx, "plugin/weather", "sunny")
	fmt.Println(err)
	_, err = plugin.Get(ctx, "secret")
	fmt.Println(err)
	// Output:
	// <nil>
	// coterie: permission denied
}

func TestUncheckedViewsCanDoEverything(t *testing.T) {
	f := newTable(t, "", true)
	u := coterie.NewUncheckedView(f.n)
	require.NoError(t, errOf(u.Put(f.ctx, "z", "v")))
	require.NoError(t, u.RequireRoot(f.ctx))
	require.NoError(t, u.RequireRead("z"))
	require.ErrorIs(t, u.RequireRead(""), coterie.ErrEmptyKey)
	require.ErrorIs(t, errOf(u.WithAuthRevision(1).Put(f.ctx, "z", "v")), coterie.ErrUserEmpty, "with a revision it is a user's")
}

func TestRequireReadKnowsTheAuthRevision(t *testing.T) {
	f := newTable(t, "reader", true)
	status, err := f.n.AuthStatus(f.ctx)
	require.NoError(t, err)
	require.NoError(t, f.WithAuthRevision(status.AuthRevision).RequireRead("a"))
	require.ErrorIs(t, f.WithAuthRevision(status.AuthRevision-1).RequireRead("a"), coterie.ErrAuthOldRevision)
}

// A stranger could otherwise fill the disks of all nodes.
func TestDeniedWritesAreNotInTheLog(t *testing.T) {
	f := newTable(t, "reader", true)
	before := f.n.Status().Applied
	for _, user := range []string{"", "nobody", "reader"} {
		u := coterie.NewUserView(f.n, user)
		for name, err := range map[string]error{
			"put":     errOf(u.Put(f.ctx, "a", "v")),
			"delete":  errOf(u.Delete(f.ctx, "a")),
			"txn":     transact(u, nil, nil, []coterie.Op{coterie.OpPut("a", "v")}),
			"revoke":  errOf(u.Revoke(f.ctx, f.wide)),
			"compact": errOf(u.Compact(f.ctx, 1)),
			"alarm":   errOf(u.RaiseAlarm(f.ctx, coterie.Alarm{Kind: coterie.AlarmNoSpace})),
			"user":    errOf(u.UserAdd(f.ctx, "new")),
		} {
			require.Error(t, err, "%s %q", name, user)
		}
	}
	require.Error(t, errOf(coterie.NewUserView(f.n, "").Grant(f.ctx, time.Hour)))
	require.Equal(t, before, f.n.Status().Applied)
	_, err := f.n.Put(f.ctx, "a", "v")
	require.NoError(t, err)
	require.Equal(t, before+1, f.n.Status().Applied, "a write counts")
}

// A node that does not know yet that permissions are granted does not deny a write.
func TestGrantedWritesAreNotDenied(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		a := administrator{t, c.Leader()}
		ctx := t.Context()
		a.user("alice")
		a.enable()
		n := c.Follower()
		alice, nobody := coterie.NewUserView(n, "alice"), coterie.NewUserView(n, "")
		for range 20 {
			a.grant("alice", coterie.Permission{Type: coterie.PermWrite, Key: "k"})
			require.NoError(t, errOf(alice.Put(ctx, "k", "v")))
			a.must(a.AuthDisable(ctx))
			require.NoError(t, errOf(nobody.Put(ctx, "k", "v")))
			a.must(a.AuthEnable(ctx))
			require.ErrorIs(t, errOf(nobody.Put(ctx, "k", "v")), coterie.ErrUserEmpty)
			a.must(a.RoleRevokePermission(ctx, "alice", "k"))
			require.ErrorIs(t, errOf(alice.Put(ctx, "k", "v")), coterie.ErrPermissionDenied)
		}
	})
}
