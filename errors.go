// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

// Compare errors with [errors.Is] and [errors.As], never by text.
//
// After [ErrMaybeApplied], a write may have happened. After every other error it has not happened, and
// never will. If the comparisons of a transaction do not hold, that is a result, not an error. If ctx
// ends a call, the error matches ctx's cause.
var (
	// ErrClosed: the node has stopped, by Close or by a fault, which [Node.Err] returns; or the value that was
	// called is closed, such as an index of package mirror. The text names it. Open another one.
	ErrClosed = fault.ErrClosed
	// ErrNoLeader: this node knows no leader, so it asked the cluster nothing and changed nothing. Retry
	// later, or read [WithSerializable].
	ErrNoLeader = fault.ErrNoLeader
	// ErrMaybeApplied: ctx or Close ended the call before the outcome was known: the write has happened, or
	// will happen, or never will. Read the key, or make the write conditional so that it can be repeated.
	// The text has the cause.
	//
	// In two rare cases the error comes before ctx ends. Both need a snapshot that brings this node
	// entries that it has missed: if nodes were started more than 10,000 times in the meantime, the cluster
	// may have forgotten this node's calls; and a result of more than 64 KiB may be lost.
	ErrMaybeApplied = fault.ErrMaybeApplied
	// ErrCompacted: the requested revision was compacted. A [CompactedError] has the oldest one that was not.
	ErrCompacted = errors.New("coterie: revision has been compacted")
	// ErrFutureRevision: the requested revision does not exist yet.
	ErrFutureRevision = errors.New("coterie: revision is in the future")
	// ErrEmptyKey: a key was empty. For all keys, give [WithPrefix] or [WithFromKey].
	ErrEmptyKey = errors.New("coterie: empty key")
	// ErrKeyNotFound: WithIgnoreValue or WithIgnoreLease needs a key that exists.
	ErrKeyNotFound = errors.New("coterie: key not found")
	// ErrDuplicateKey: a transaction writes one key twice. Split it.
	ErrDuplicateKey = errors.New("coterie: key written twice in a transaction")
	// ErrTooManyOps: a transaction has more comparisons or operations than Config.MaxTxnOps. A [LimitError]
	// has the numbers.
	ErrTooManyOps = fault.ErrTooManyOps
	// ErrTooLarge: a write is larger than Config.MaxRequestBytes. A [LimitError] has the numbers.
	ErrTooLarge = fault.ErrTooLarge
	// ErrInvalidOption: options or arguments are invalid or exclude each other. The text names them.
	ErrInvalidOption = fault.ErrInvalidOption
	// ErrLeaseNotFound: the lease was never granted, was revoked, or has expired. Grant another one.
	ErrLeaseNotFound = errors.New("coterie: lease not found")
	// ErrLeaseExists: the lease ID of [WithGrantID] is in use.
	ErrLeaseExists = errors.New("coterie: lease exists")
	// ErrTTLRange: a TTL is less than [MinTTL] or more than [MaxTTL]. Check the unit: Grant(ctx, 300) asks
	// for 300 ns.
	ErrTTLRange = errors.New("coterie: TTL out of range")
	// ErrNoSpace: this node or the leader cannot write its log, because its disk is full, or file
	// descriptors or memory are short, which the text says; or the store has reached Config.QuotaBytes, and
	// a [LimitError] has the numbers. Nothing was changed. Reads work meanwhile, and writes work again as
	// soon as there is room. At the quota, delete keys or compact.
	ErrNoSpace = fault.ErrNoSpace
	// ErrOverloaded: more writes wait in this node than Config.MaxPendingCalls or MaxPendingBytes allow. A
	// [LimitError] has the numbers. Nothing was changed. Retry later, or on another node.
	ErrOverloaded = fault.ErrOverloaded
	// ErrLocked: TryLock found the lock held by another holder, which a [HeldError] names; or this Mutex is
	// locked already; or another Campaign of this Election is in progress.
	ErrLocked = errors.New("coterie: locked")
	// ErrNotOwner: this session does not hold the lock or the leadership, or has lost it. Stop the work
	// that it protected.
	ErrNotOwner = errors.New("coterie: not the owner")
	// ErrSessionExpired: the lease of the session has ended, or may have; its locks and leadership are
	// lost. Open another session.
	ErrSessionExpired = errors.New("coterie: session expired")
	// ErrStopCampaign: a body of [RunAsLeader] returns it, alone or wrapped, to end the campaign of this
	// instance. No other call returns it.
	ErrStopCampaign = errors.New("coterie: the body stops the campaign")
	// ErrAuthNotEnabled: permissions are not checked, so [Node.Authenticate] has nothing to protect.
	ErrAuthNotEnabled = errors.New("coterie: authentication is not enabled")
	// ErrAuthFailed: the password is wrong, or there is no such user.
	ErrAuthFailed = errors.New("coterie: authentication failed")
	// ErrNoPasswordUser: the user was added without a password, so no password authenticates it.
	ErrNoPasswordUser = errors.New("coterie: the user has no password")
	// ErrRootUserNotExist and ErrRootRoleNotExist: [Node.AuthEnable] needs a user root that has the role root.
	ErrRootUserNotExist = errors.New("coterie: user root does not exist")
	ErrRootRoleNotExist = errors.New("coterie: user root does not have the role root")
	// ErrUserEmpty: the name of a user is empty, or a call needs a user and has none.
	ErrUserEmpty = errors.New("coterie: empty user name")
	// ErrUserExists: a user of that name exists.
	ErrUserExists = errors.New("coterie: user exists")
	// ErrUserNotFound: there is no such user.
	ErrUserNotFound = errors.New("coterie: user not found")
	// ErrRoleEmpty: the name of a role is empty.
	ErrRoleEmpty = errors.New("coterie: empty role name")
	// ErrRoleExists: a role of that name exists.
	ErrRoleExists = errors.New("coterie: role exists")
	// ErrRoleNotFound: there is no such role.
	ErrRoleNotFound = errors.New("coterie: role not found")
	// ErrRoleNotGranted: the user does not have the role.
	ErrRoleNotGranted = errors.New("coterie: role is not granted to the user")
	// ErrPermissionNotGranted: the role has no permission on exactly that range.
	ErrPermissionNotGranted = errors.New("coterie: permission is not granted to the role")
	// ErrPermissionDenied: no role of the user allows the call, or the user does not exist.
	ErrPermissionDenied = errors.New("coterie: permission denied")
	// ErrAuthOldRevision: users or roles have changed since the revision of [UserView.WithAuthRevision].
	// Authenticate again.
	ErrAuthOldRevision = errors.New("coterie: revision of users and roles is old")
	// ErrInvalidAuthToken: the token was not made by a node of this cluster, or it has ended: after its time,
	// because the user was deleted or has another password, or because permissions were not checked in between.
	ErrInvalidAuthToken = errors.New("coterie: invalid token")
	// ErrInvalidAuthMgmt: a change would lock everyone out while permissions are checked, because it takes the
	// user root or its role away; or a permission names no key.
	ErrInvalidAuthMgmt = errors.New("coterie: invalid change of users or roles")
	// ErrClusterMismatch: a node that answered belongs to another cluster, or is another member than the
	// expected one. Check Config.Cluster, Config.Founders and the addresses.
	ErrClusterMismatch = fault.ErrClusterMismatch
	// ErrDirMismatch: the data directory is not the one that the cluster has on record for this member.
	// There are three causes:
	//
	//   - The directory is lost, and this one is empty. Remove the member ([Node.RemoveMember]); the node
	//     then joins again by itself.
	//   - The directory was put back from an older copy, or a copy of it has been in use since. Remove the
	//     member, and start its node with an empty directory.
	//   - Two nodes have one name. Give one of them another.
	ErrDirMismatch = fault.ErrDirMismatch
	// ErrDuplicateNode: another node runs on a copy of this node's directory. This node has stopped; the
	// other one continues. If the other one is the copy, stop it as well and remove the member, because each
	// may have acknowledged entries that the other one lacks. A node that is to run beside this one needs
	// its own name and an empty directory.
	ErrDuplicateNode = fault.ErrDuplicateNode
	// ErrMemberNotFound: there is no such member. If it stopped a node or keeps it from joining, the member
	// was removed, and its directory cannot be used again.
	ErrMemberNotFound = fault.ErrMemberNotFound
	// ErrMemberExists: a member of that name exists.
	ErrMemberExists = fault.ErrMemberExists
	// ErrMemberNotReady: the member has not caught up with the leader, and PromoteMember was not to wait for that.
	// Nothing was changed.
	ErrMemberNotReady = fault.ErrMemberNotReady
	// ErrUnhealthy: the change would leave the cluster without a reachable majority, or make an unreachable
	// member lead. Restore members first, or remove others.
	ErrUnhealthy = fault.ErrUnhealthy
	// ErrDirInUse: another node, in this process or another one, has the data directory open.
	ErrDirInUse = fault.ErrDirInUse
	// ErrDirNotEmpty: the target directory of RestoreBackup has the data of a node. Nothing was changed;
	// name a new directory.
	ErrDirNotEmpty = fault.ErrDirNotEmpty
	// ErrStorageMismatch: the directory was made with another storage than that of Config.Storage. The text of the
	// error names both. Nothing was changed. Set Config.Storage to the storage of the directory, or convert the
	// directory with datadir.Convert or coterie-inspect convert. Or the directory has files of both storages, and the
	// text names a file of each.
	ErrStorageMismatch = fault.ErrStorageMismatch
	// ErrRestoreUnfinished: a RestoreBackup into the data directory did not finish. Call it again, or
	// remove the directory.
	ErrRestoreUnfinished = fault.ErrRestoreUnfinished
	// ErrFormat: a file, a backup or a message of another node has a version of its format that this program
	// does not read. A [FormatError] has both versions. Nothing is damaged, and nothing was changed. Use a
	// version of this package that reads it, which is the one that ran here last. Never remove the directory
	// because of this error: the other members may be in the same state.
	ErrFormat = fault.ErrFormat
	// ErrCorrupt: data on disk or from another node is damaged; or a part of a directory is missing, or older
	// than the rest; or a node has applied entries that the cluster does not have. The text says which. If
	// other members have the data, remove the member, and let its node join again with an empty directory;
	// otherwise restore a backup. Never restore an older copy of a directory: it lacks promises that the node
	// has made since, and that is not always noticed.
	ErrCorrupt = fault.ErrCorrupt
)

// A CompactedError reports that a revision was compacted. It matches [ErrCompacted].
type CompactedError struct {
	// Revision is the oldest revision that can be read and watched. Resume from it. If the missed changes
	// matter, read the current state first.
	Revision int64 `json:"revision"`
}

func (e *CompactedError) Error() string {
	return fmt.Sprintf("coterie: revision has been compacted; the oldest kept is %d", e.Revision)
}

// Is reports whether target is ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

// A FormatError names the version of a format that this program does not read. It matches [ErrFormat].
type FormatError struct {
	What    string `json:"what"`    // the thing that has the version: a file, an entry of the log, a hello
	Version uint64 `json:"version"` // its version; 0 if it names none
	Reads   uint64 `json:"reads"`   // the newest version that this program reads
	Err     error  `json:"-"`       // where the version was found; nil if that is not known
}

func (e *FormatError) Error() string {
	if e.Err == nil { // read from JSON
		return fmt.Sprintf("%v: %s has version %d, this program reads version %d", ErrFormat, e.What, e.Version, e.Reads)
	}
	return fmt.Sprintf("%v: %v; nothing is damaged: use a version of coterie that reads it", ErrFormat, e.Err)
}

// Is reports whether target is ErrFormat.
func (e *FormatError) Is(target error) bool { return target == ErrFormat }

// Unwrap returns Err.
func (e *FormatError) Unwrap() error { return e.Err }

// A LimitError reports a request that exceeds a limit. It matches [ErrTooLarge], [ErrTooManyOps],
// [ErrNoSpace] or [ErrOverloaded].
type LimitError struct {
	Limit  int64 `json:"limit"`
	Actual int64 `json:"actual"`
	err    error
}

func (e *LimitError) Error() string {
	if e.err == nil { // made by another package, or read from JSON
		return fmt.Sprintf("coterie: %d exceeds the limit of %d", e.Actual, e.Limit)
	}
	return e.err.Error()
}

// Unwrap returns an error that matches the limit's sentinel.
func (e *LimitError) Unwrap() error { return e.err }

// limitError returns the public form of an error if it is a limit's, and otherwise the error itself.
func limitError(err error) error {
	var limit *fault.LimitError
	if !errors.As(err, &limit) {
		return err
	}
	return &LimitError{limit.Limit, limit.Actual, err}
}

// resultError returns the error of a command that a rule rejected, or nil.
func resultError(r *command.Result) error {
	switch r.Code {
	case command.OK:
		return nil
	case command.Compacted:
		return &CompactedError{Revision: r.CompactRevision}
	case command.FutureRevision:
		return ErrFutureRevision
	case command.KeyNotFound:
		return ErrKeyNotFound
	case command.LeaseNotFound:
		return ErrLeaseNotFound
	case command.LeaseExists:
		return ErrLeaseExists
	}
	if err := codeError(r.Code); err != nil {
		return err
	}
	return fmt.Errorf("%w: result code %d", ErrCorrupt, r.Code)
}

// authErrors are the errors of the codes about users and roles.
var authErrors = map[command.Code]error{
	command.RootUserNotExist:     ErrRootUserNotExist,
	command.RootRoleNotExist:     ErrRootRoleNotExist,
	command.UserExists:           ErrUserExists,
	command.UserEmpty:            ErrUserEmpty,
	command.UserNotFound:         ErrUserNotFound,
	command.RoleExists:           ErrRoleExists,
	command.RoleEmpty:            ErrRoleEmpty,
	command.RoleNotFound:         ErrRoleNotFound,
	command.RoleNotGranted:       ErrRoleNotGranted,
	command.PermissionNotGranted: ErrPermissionNotGranted,
	command.InvalidAuthMgmt:      ErrInvalidAuthMgmt,
	command.PermissionDenied:     ErrPermissionDenied,
	command.AuthOldRevision:      ErrAuthOldRevision,
	command.AuthNotEnabled:       ErrAuthNotEnabled,
}

// codeError returns the error of a code about users and roles, or nil.
func codeError(code command.Code) error {
	if code == command.OK {
		return nil
	}
	return authErrors[code]
}

// commandError returns the public form of an error of command.Validate or command.CheckSize.
func commandError(err error) error {
	if err == nil {
		return nil // before the variables below, which escape: every write comes here
	}
	var limit *command.LimitError
	var invalid *command.InvalidError
	switch {
	case errors.As(err, &limit):
		public := fault.LimitError{Limit: limit.Limit, Actual: limit.Actual, Kind: ErrTooManyOps, Unit: "operations", Field: "MaxTxnOps"}
		if limit.Bytes {
			public.Kind, public.Unit, public.Field = ErrTooLarge, "bytes", "MaxRequestBytes"
		}
		return limitError(&public)
	case errors.Is(err, command.ErrEmptyKey):
		return ErrEmptyKey
	case errors.Is(err, command.ErrDuplicateKey):
		return ErrDuplicateKey
	case errors.As(err, &invalid):
		return fmt.Errorf("%w: %s", ErrInvalidOption, invalid.Reason)
	}
	return fmt.Errorf("%w: %w", ErrInvalidOption, err)
}

// revisionError returns the reason why a view cannot be read at a revision, or nil.
func revisionError(v *state.View, rev int64) error {
	switch v.KV.CheckRevision(rev) {
	case mvcc.ErrCompacted:
		return &CompactedError{Revision: v.KV.CompactRevision()}
	case mvcc.ErrFuture:
		return ErrFutureRevision
	}
	return nil
}

// damaged returns the public form of an error that reports malformed data, from a disk or another node.
func damaged(err error) error {
	if format := formatError(err); format != nil {
		return format
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// formatError returns the public form of an error about another version's format, and nil for any other
// error.
func formatError(err error) error {
	var format *wire.FormatError
	if !errors.As(err, &format) {
		return nil
	}
	return &FormatError{What: format.What, Version: format.Version, Reads: format.Reads, Err: err}
}

// logError returns the public form of an error of package raftlog.
func logError(err error) error {
	if format := formatError(err); format != nil {
		return format
	}
	return raftlog.Fault(err)
}
