// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie/internal/fault"
)

// Errors are compared with [errors.Is] and [errors.As], never by text.
//
// A write that fails has either not happened and never will (every error but one), or it may have
// happened ([ErrMaybeApplied]). A failed compare of a transaction is a result, not an error. A call
// whose context ends returns an error that matches the context's cause.
var (
	// ErrClosed: the node has stopped, by Close or by a fault that [Node.Err] tells. Open another.
	ErrClosed = fault.ErrClosed
	// ErrNoLeader: no leader is known, so nothing could be asked of the cluster, and nothing was
	// changed. Try again later, or read with [WithSerializable].
	ErrNoLeader = fault.ErrNoLeader
	// ErrMaybeApplied: the call ended, by its context or the node's Close, while the outcome was
	// open: the write has happened, or will, or never will. Read the key, or make the write
	// conditional so that it can be repeated. The text has the cause. It comes without the call's end
	// in two cases that are rare, both when a snapshot brings this node what it has missed: meanwhile,
	// after more than 10,000 starts of nodes, the cluster may have forgotten its calls; and a result of
	// more than 64 KiB may be lost.
	ErrMaybeApplied = fault.ErrMaybeApplied
	// ErrCompacted: the revision asked for is no longer kept; see [CompactedError] for the oldest
	// that is.
	ErrCompacted = errors.New("coterie: revision has been compacted")
	// ErrFutureRevision: the revision asked for does not exist yet.
	ErrFutureRevision = errors.New("coterie: revision is in the future")
	// ErrEmptyKey: a key was empty. Use "\x00" with [WithFromKey] for all keys.
	ErrEmptyKey = errors.New("coterie: empty key")
	// ErrKeyNotFound: WithIgnoreValue or WithIgnoreLease needs a key that exists.
	ErrKeyNotFound = errors.New("coterie: key not found")
	// ErrDuplicateKey: a transaction writes one key twice. Split it.
	ErrDuplicateKey = errors.New("coterie: key written twice in a transaction")
	// ErrTooManyOps: a transaction has more compares or operations than Config.MaxTxnOps; see
	// [LimitError].
	ErrTooManyOps = fault.ErrTooManyOps
	// ErrTooLarge: a write is larger than Config.MaxRequestBytes; see [LimitError].
	ErrTooLarge = fault.ErrTooLarge
	// ErrInvalidOption: options or arguments that do not go together; the text says which.
	ErrInvalidOption = errors.New("coterie: invalid option")
	// ErrLeaseNotFound: the lease was never granted, was revoked, or has expired. Grant another.
	ErrLeaseNotFound = errors.New("coterie: lease not found")
	// ErrLeaseExists: the lease ID asked for is in use.
	ErrLeaseExists = errors.New("coterie: lease exists")
	// ErrTTLRange: a time to live under [MinTTL] or over [MaxTTL]. Mind the unit: Grant(ctx, 300)
	// means 300 ns.
	ErrTTLRange = errors.New("coterie: TTL out of range")
	// ErrNoSpace: this node, or the leader, cannot write its log, since its disk is full or its process
	// has no file descriptor or memory left, which the text tells; or the store holds
	// Config.QuotaBytes, of which [LimitError] tells. Nothing was changed. Reads go on, and writes do as
	// soon as there is room: at the quota, delete or compact.
	ErrNoSpace = fault.ErrNoSpace
	// ErrOverloaded: more writes wait in this node than Config.MaxPendingCalls or MaxPendingBytes allow;
	// see [LimitError]. Nothing was changed. Try again later, or elsewhere.
	ErrOverloaded = fault.ErrOverloaded
	// ErrLocked: TryLock found the lock held by another, which a [HeldError] names; or this Mutex is locked already, or another
	// Campaign of this Election is under way.
	ErrLocked = errors.New("coterie: locked by another holder")
	// ErrNotOwner: the lock or the leadership is not, or no longer, this session's. Stop what it
	// protected.
	ErrNotOwner = errors.New("coterie: not the owner")
	// ErrSessionExpired: the session's lease has ended, or may have; its locks and leadership are
	// lost. Open another session.
	ErrSessionExpired = errors.New("coterie: session expired")
	// ErrStopCampaign: the body of [RunAsLeader] returns it, alone or wrapped, to make this instance
	// campaign no more. No other call returns it.
	ErrStopCampaign = errors.New("coterie: the body stops the campaign")
	// ErrClusterMismatch: the node that answered belongs to another cluster, or is another member
	// than the one meant. Check Config.Cluster, Config.Founders and the addresses.
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
	// ErrDuplicateNode: another node runs on a copy of this node's directory. This one has stopped, the
	// other goes on. If the other is the copy, stop it, too, and remove the member: both may have
	// acknowledged what the other does not have. A node that is to run beside it needs a name and an
	// empty directory of its own.
	ErrDuplicateNode = fault.ErrDuplicateNode
	// ErrMemberNotFound: there is no such member. As the reason why a node has stopped, or does not get
	// in: it was removed, and its directory is of no more use.
	ErrMemberNotFound = fault.ErrMemberNotFound
	// ErrMemberExists: a member of that name exists.
	ErrMemberExists = fault.ErrMemberExists
	// ErrUnhealthy: the change would leave the cluster without a majority that can be reached, or have
	// a member lead that cannot be. Bring members back first, or remove others.
	ErrUnhealthy = fault.ErrUnhealthy
	// ErrDirInUse: another node, in this process or another, has the data directory open.
	ErrDirInUse = fault.ErrDirInUse
	// ErrDirNotEmpty: the directory that a backup is to be restored to has a node's data. Nothing
	// was changed; name a new one.
	ErrDirNotEmpty = fault.ErrDirNotEmpty
	// ErrRestoreUnfinished: RestoreBackup did not come to its end in the data directory. Call it
	// again, or remove the directory.
	ErrRestoreUnfinished = fault.ErrRestoreUnfinished
	// ErrFormat: a file, a backup, or what another node sent is of a version of its format that this
	// program does not read; [FormatError] has both versions. Nothing is damaged, and nothing was
	// changed. Use a version of this package that reads it, the one that has run here last. Never remove
	// the directory for this: the others of the cluster may be in the same position.
	ErrFormat = fault.ErrFormat
	// ErrCorrupt: data on disk or from another node is damaged, or a part of a directory is gone or older
	// than the rest, or a node has applied what the cluster does not have; the text names the place. If
	// other members have the data, remove the member, and let it join anew with an empty directory; else
	// restore a backup. An older copy of a directory must not be put back: it has forgotten what its node
	// promised since, and that cannot always be noticed.
	ErrCorrupt = fault.ErrCorrupt
)

// A CompactedError says that a revision is no longer kept. It matches [ErrCompacted].
type CompactedError struct {
	// Revision is the oldest revision that can still be read and watched: resume from it, after
	// reading the present state if what was missed matters.
	Revision int64
}

func (e *CompactedError) Error() string {
	return fmt.Sprintf("coterie: revision has been compacted; the oldest kept is %d", e.Revision)
}

// Is reports whether target is ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

// A FormatError says which version something has that this program does not read. It matches
// [ErrFormat].
type FormatError struct {
	What    string `json:"what"`    // has that version: a file, an entry of the log, a hello
	Version uint64 `json:"version"` // which it has; 0 if it does not say
	Reads   uint64 `json:"reads"`   // the newest version that this program reads
	Err     error  `json:"-"`       // says where the version was found; nil if that is not known
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

// A LimitError says which limit a request exceeds. It matches [ErrTooLarge], [ErrTooManyOps],
// [ErrNoSpace] or [ErrOverloaded].
type LimitError struct {
	Limit, Actual int64
	err           error
}

func (e *LimitError) Error() string { return e.err.Error() }

// Unwrap returns an error that matches the limit's sentinel.
func (e *LimitError) Unwrap() error { return e.err }

// limitError returns the public form of an error if a limit refused the request, else the error itself.
func limitError(err error) error {
	var limit *fault.LimitError
	if !errors.As(err, &limit) {
		return err
	}
	return &LimitError{limit.Limit, limit.Actual, err}
}
