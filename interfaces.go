// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"io"
	"iter"
	"time"
)

// The interfaces that a [Node], a [UserView] and a [Namespace] satisfy, with the names of clientv3's. A function that
// takes one of them can be given a namespace, or a fake in a test. For most tests a node with
// [Config].InMemory needs less code than a fake, and behaves as the real one. Methods may be added to
// these interfaces: embed them in a fake.

// KV reads and writes keys.
type KV interface {
	Doer
	Put(ctx context.Context, key, val string, opts ...PutOption) (*PutResponse, error)
	Get(ctx context.Context, key string, opts ...GetOption) (*GetResponse, error)
	Range(ctx context.Context, key string, opts ...ScanOption) iter.Seq2[KeyValue, error]
	Delete(ctx context.Context, key string, opts ...DeleteOption) (*DeleteResponse, error)
	Txn(ctx context.Context) *Txn
	Compact(ctx context.Context, rev int64) (*CompactResponse, error)
}

// A Watcher watches keys.
type Watcher interface {
	Watch(ctx context.Context, key string, opts ...WatchOption) iter.Seq2[WatchResponse, error]
	WatchChan(ctx context.Context, key string, opts ...WatchOption) <-chan WatchResult
}

// A Leaser grants and renews leases.
type Leaser interface {
	Grant(ctx context.Context, ttl time.Duration, opts ...GrantOption) (*GrantResponse, error)
	Revoke(ctx context.Context, id LeaseID) (*RevokeResponse, error)
	KeepAliveOnce(ctx context.Context, id LeaseID) (*KeepAliveResponse, error)
	KeepAlive(ctx context.Context, id LeaseID) error
	TimeToLive(ctx context.Context, id LeaseID) (*TimeToLiveResponse, error)
	Leases(ctx context.Context) (*LeasesResponse, error)
}

// Auth manages users, roles and their permissions. A [Namespace] does not satisfy it. A program that embeds a node authenticates its callers itself,
// with [Node.Authenticate] or in another way.
type Auth interface {
	AuthEnable(ctx context.Context) (*AuthEnableResponse, error)
	AuthDisable(ctx context.Context) (*AuthDisableResponse, error)
	AuthStatus(ctx context.Context) (*AuthStatusResponse, error)

	UserAdd(ctx context.Context, name string, opts ...UserOption) (*UserAddResponse, error)
	UserDelete(ctx context.Context, name string) (*UserDeleteResponse, error)
	UserChangePassword(ctx context.Context, name string, hash []byte) (*UserChangePasswordResponse, error)
	UserGrantRole(ctx context.Context, name, role string) (*UserGrantRoleResponse, error)
	UserRevokeRole(ctx context.Context, name, role string) (*UserRevokeRoleResponse, error)
	UserGet(ctx context.Context, name string) (*UserGetResponse, error)
	UserList(ctx context.Context) (*UserListResponse, error)

	RoleAdd(ctx context.Context, role string) (*RoleAddResponse, error)
	RoleDelete(ctx context.Context, role string) (*RoleDeleteResponse, error)
	RoleGrantPermission(
		ctx context.Context, role string, t PermissionType, key string, opts ...RangeOption,
	) (*RoleGrantPermissionResponse, error)
	RoleRevokePermission(ctx context.Context, role, key string, opts ...RangeOption) (*RoleRevokePermissionResponse, error)
	RoleGet(ctx context.Context, role string) (*RoleGetResponse, error)
	RoleList(ctx context.Context) (*RoleListResponse, error)
}

// Maintenance observes and checks a node. A [Namespace] does not satisfy it.
type Maintenance interface {
	Status() Status
	Check(ctx context.Context) error
	Hash(ctx context.Context, rev int64) (*HashResponse, error)
	Backup(ctx context.Context, w io.Writer) (*BackupResponse, error)
}

var (
	_ interface {
		KV
		Watcher
		Leaser
		Auth
		Maintenance
	} = (*Node)(nil)
	_ interface {
		KV
		Watcher
		Leaser
		Auth
		Maintenance
	} = (*UserView)(nil)
	_ interface {
		KV
		Watcher
		Leaser
	} = (*Namespace)(nil)
)
