// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/state"
)

// A UserView is a view of a node that acts as a user: a program can hand it to parts that it trusts less. The
// program vouches for the name, for example after [Node.Authenticate]. While permissions are not checked,
// because [Node.AuthEnable] was not called, a UserView can do everything that the Node can.
//
// Every node checks a write when it applies it, with the roles that the user has then. So no write is applied
// after a change that takes the permission away. The node of the view checks it before, too, so that a write that is not
// permitted takes no space in the log. A read is checked in the state that it reads. A watch is checked
// when it is made and after each change of users and roles, and ends with ErrPermissionDenied.
//
// The calls need the same permissions as in etcd:
//
//   - READ of a key or of the whole range: Get, Range, Watch, each comparison, and the previous values that Put
//     and Delete return WithPrevKV. TimeToLive needs it for all keys of the lease, Leases for the keys of all
//     leases.
//   - WRITE: Put, also to all keys of the lease WithLease; Delete, to the whole range; Revoke and KeepAliveOnce,
//     to all keys of the lease.
//   - A transaction needs the permissions of all its operations: those of both branches, whichever runs, and of
//     nested transactions.
//   - A user that exists: Grant, Alarms.
//   - The role root: Compact, Check, Hash, Backup, RaiseAlarm, ClearAlarm, and all changes and lists of users and
//     roles. Users may get themselves and their own roles.
//   - None: AuthStatus, and Status, which has no keys.
//
// A call that is not permitted returns ErrPermissionDenied, or ErrUserEmpty if the view has no user, and changes
// nothing. A UserView has no state but the node, and is not closed. Its methods may be called concurrently.
type UserView struct {
	n  *Node
	as *command.As // nil for the view that belongs to the program itself
}

// NewUserView returns the view of a node as a user. The user need not exist yet. An empty name is that of a caller
// that has not authenticated.
func NewUserView(n *Node, user string) *UserView { return &UserView{n, &command.As{User: user}} }

// NewUncheckedView returns the view of a node that belongs to the program itself. Like the calls of the Node, its calls
// are not checked. It is for code that acts as a user or as the program, depending on its caller.
func NewUncheckedView(n *Node) *UserView { return n.own() }

// WithAuthRevision returns a view. Its calls on keys fail with ErrAuthOldRevision once users or roles have changed
// since a revision, for example that of an [AuthenticateResponse]. So a caller that authenticated before a change
// has to do so again. Without it, the view keeps the name of the user through all changes. 0 removes the revision.
func (u *UserView) WithAuthRevision(rev uint64) *UserView {
	as := command.As{Revision: rev}
	if u.as != nil {
		as.User = u.as.User
	}
	return &UserView{u.n, &as}
}

// Namespace returns the view of the keys that begin with a prefix, as [NewNamespace] does, with the permissions of
// the user.
func (u *UserView) Namespace(prefix string) *Namespace { return &Namespace{u, prefix} }

// RequireUser returns nil if the user of the view exists, or if permissions are not checked. It is for calls that a
// program offers itself. It is linearizable unless [WithSerializable] is given.
//
// Errors: ErrUserEmpty, ErrPermissionDenied; those of [Node.Alarms].
func (u *UserView) RequireUser(ctx context.Context, opts ...MembersOption) error {
	return u.require(ctx, opts, func(v *state.View) command.Code { return v.Auth.Guard(u.as).User() })
}

// RequireRoot returns nil if the user of the view has the role root, or if permissions are not checked. It is for
// calls that a program offers itself. It is linearizable unless [WithSerializable] is given.
//
// Errors: ErrUserEmpty, ErrUserNotFound, ErrPermissionDenied; those of [Node.Alarms].
func (u *UserView) RequireRoot(ctx context.Context, opts ...MembersOption) error {
	return u.require(ctx, opts, u.isRoot)
}

// RequireRead returns nil if the user of the view may read a key or, with a range option, keys, by the users and roles
// that this node has applied. It asks no other node. It is for calls that a program offers itself: Get, Range and Watch
// check the permission by themselves.
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; ErrEmptyKey, ErrInvalidOption; ErrClosed.
func (u *UserView) RequireRead(key string, opts ...RangeOption) error {
	var o deleteOptions
	for _, opt := range opts {
		opt.del(&o)
	}
	key, end, err := o.keys.bounds(key)
	if err != nil {
		return err
	}
	if err := u.n.life.Err(); err != nil || u.as == nil {
		return err
	}
	return codeError(u.n.views.Summary().Auth.Guard(u.as).Range(command.Read, key, end))
}

// require returns why the user does not pass a check, in the newest state or, with WithSerializable, in that of this
// node.
func (u *UserView) require(ctx context.Context, opts []MembersOption, permit func(*state.View) command.Code) error {
	var o membersOptions
	for _, opt := range opts {
		opt.members(&o)
	}
	v, err := u.n.reads.view(ctx, &getOptions{serializable: o.serializable})
	if err == nil && u.as != nil {
		err = codeError(permit(v))
	}
	return err
}

func (u *UserView) isRoot(v *state.View) command.Code { return v.Auth.Guard(u.as).Root() }

// latest returns a view that has everything that was answered before the call, if the user may read it.
func (u *UserView) latest(ctx context.Context, permit func(*state.View) command.Code) (*state.View, error) {
	v, err := u.n.latest(ctx)
	if err == nil && u.as != nil {
		err = codeError(permit(v))
	}
	return v, err
}

// Put is [Node.Put].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; those of Node.Put.
func (u *UserView) Put(ctx context.Context, key, val string, opts ...PutOption) (*PutResponse, error) {
	r, err := u.Do(ctx, OpPut(key, val, opts...))
	return r.Put, err
}

// Get is [Node.Get].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; those of Node.Get.
func (u *UserView) Get(ctx context.Context, key string, opts ...GetOption) (*GetResponse, error) {
	var o getOptions
	if err := readOptions(&o, key, opts); err != nil {
		return nil, err
	}
	return u.n.get(ctx, u.as, &o)
}

// Range is [Node.Range]. The permission is checked once, at the revision that Range reads.
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; those of Node.Range.
func (u *UserView) Range(ctx context.Context, key string, opts ...ScanOption) iter.Seq2[KeyValue, error] {
	return u.n.scanned(ctx, u.as, key, opts)
}

// Delete is [Node.Delete].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; those of Node.Delete.
func (u *UserView) Delete(ctx context.Context, key string, opts ...DeleteOption) (*DeleteResponse, error) {
	r, err := u.Do(ctx, OpDelete(key, opts...))
	return r.Delete, err
}

// Txn is [Node.Txn].
func (u *UserView) Txn(ctx context.Context) *Txn { return NewTxn(ctx, u) }

// Do is [Node.Do].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; those of Node.Do.
func (u *UserView) Do(ctx context.Context, op Op) (OpResponse, error) { return u.n.do(ctx, u.as, op) }

// Compact is [Node.Compact].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.Compact.
func (u *UserView) Compact(ctx context.Context, rev int64) (*CompactResponse, error) {
	return u.n.compact(ctx, u.as, rev)
}

// Watch is [Node.Watch].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; those of Node.Watch.
func (u *UserView) Watch(ctx context.Context, key string, opts ...WatchOption) iter.Seq2[WatchResponse, error] {
	w, err := u.newCursor(ctx, key, opts, nil)
	return w.sequence(err)
}

// WatchChan is [Node.WatchChan].
func (u *UserView) WatchChan(ctx context.Context, key string, opts ...WatchOption) <-chan WatchResult {
	return sendResults(ctx, u.n, u.Watch(ctx, key, opts...))
}

// Grant is [Node.Grant].
//
// Errors: ErrPermissionDenied, ErrUserEmpty; those of Node.Grant.
func (u *UserView) Grant(ctx context.Context, ttl time.Duration, opts ...GrantOption) (*GrantResponse, error) {
	return u.n.grant(ctx, u.as, ttl, opts)
}

// Revoke is [Node.Revoke].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; those of Node.Revoke.
func (u *UserView) Revoke(ctx context.Context, id LeaseID) (*RevokeResponse, error) {
	return u.n.revoke(ctx, u.as, id)
}

// KeepAliveOnce is [Node.KeepAliveOnce]. A renewal is not in the log: the permission is checked before it. The check is
// linearizable once this node has applied an AuthEnable; until then it costs nothing.
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; those of Node.KeepAliveOnce.
func (u *UserView) KeepAliveOnce(ctx context.Context, id LeaseID) (*KeepAliveResponse, error) {
	if u.as != nil && u.n.views.Summary().Auth.Enabled {
		_, err := u.latest(ctx, func(v *state.View) command.Code {
			return v.Auth.Guard(u.as).Keys(command.Write, v.Leases.Keys(int64(id)))
		})
		if err != nil {
			return nil, err
		}
	}
	return u.n.KeepAliveOnce(ctx, id)
}

// KeepAlive is [Node.KeepAlive]. It also ends when the user loses the permission.
//
// Errors: those of KeepAliveOnce; those of Node.KeepAlive.
func (u *UserView) KeepAlive(ctx context.Context, id LeaseID) error {
	return u.n.keepAlive(ctx, id, u.KeepAliveOnce)
}

// TimeToLive is [Node.TimeToLive].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; those of Node.TimeToLive.
func (u *UserView) TimeToLive(ctx context.Context, id LeaseID) (*TimeToLiveResponse, error) {
	return u.n.timeToLive(ctx, u.as, id)
}

// Leases is [Node.Leases].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrAuthOldRevision; those of Node.Leases.
func (u *UserView) Leases(ctx context.Context) (*LeasesResponse, error) {
	v, err := u.latest(ctx, func(v *state.View) command.Code {
		for l := range v.Leases.All() {
			if code := v.Auth.Guard(u.as).Keys(command.Read, v.Leases.Keys(l.ID)); code != command.OK {
				return code
			}
		}
		return v.Auth.Guard(u.as).User()
	})
	if err != nil {
		return nil, err
	}
	return u.n.leasesOf(v), nil
}

// Status is [Node.Status].
func (u *UserView) Status() Status { return u.n.Status() }

// Check is [Node.Check].
//
// Errors: those of RequireRoot and of Node.Check.
func (u *UserView) Check(ctx context.Context) error {
	if err := u.RequireRoot(ctx); err != nil {
		return err
	}
	return u.n.Check(ctx)
}

// Hash is [Node.Hash].
//
// Errors: those of RequireRoot and of Node.Hash.
func (u *UserView) Hash(ctx context.Context, rev int64) (*HashResponse, error) {
	if err := u.RequireRoot(ctx); err != nil {
		return nil, err
	}
	return u.n.Hash(ctx, rev)
}

// Backup is [Node.Backup].
//
// Errors: those of RequireRoot and of Node.Backup.
func (u *UserView) Backup(ctx context.Context, w io.Writer) (*BackupResponse, error) {
	if err := u.RequireRoot(ctx); err != nil {
		return nil, err
	}
	return u.n.Backup(ctx, w)
}
