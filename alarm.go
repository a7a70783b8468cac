// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"

	"github.com/coterie-kv/coterie/internal/command"
)

// An AlarmKind says what is wrong with a member.
type AlarmKind uint8

// The kinds of alarms.
const (
	AlarmNoSpace AlarmKind = iota + 1 // the store has reached the quota of the member
	AlarmCorrupt                      // the data of the member differ from those of the others
)

func (k AlarmKind) String() string {
	switch k {
	case AlarmNoSpace:
		return "NOSPACE"
	case AlarmCorrupt:
		return "CORRUPT"
	}
	return fmt.Sprintf("AlarmKind(%d)", uint8(k))
}

// MarshalText returns the kind as String does. It fails for a value that is no kind.
func (k AlarmKind) MarshalText() ([]byte, error) {
	if k != AlarmNoSpace && k != AlarmCorrupt {
		return nil, fmt.Errorf("coterie: %v is not a kind of alarms", k)
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads what MarshalText returns.
func (k *AlarmKind) UnmarshalText(text []byte) error {
	for _, known := range []AlarmKind{AlarmNoSpace, AlarmCorrupt} {
		if known.String() == string(text) {
			*k = known
			return nil
		}
	}
	return fmt.Errorf("coterie: %q is not a kind of alarms", text)
}

// An Alarm is a notice for operators that the cluster keeps until it is cleared. A node raises none by itself, and an
// alarm changes none of its calls. Package etcdapi raises AlarmNoSpace when a client meets the quota, and rejects the
// writes of its clients while there are alarms, as etcd does.
type Alarm struct {
	Member MemberID  `json:"member"` // it need not be a member
	Kind   AlarmKind `json:"kind"`
}

// An AlarmResponse answers [Node.RaiseAlarm] and [Node.ClearAlarm].
type AlarmResponse struct {
	Header
	Changed bool `json:"changed"` // false if the alarm was raised, or cleared, before
}

// Alarms returns the alarms that are raised, in the order of their members, then of their kinds. It asks the leader,
// like a linearizable read, unless [WithSerializable] is given. Backups have no alarms.
//
// Errors: those of [Node.Ready].
func (n *Node) Alarms(ctx context.Context, opts ...MembersOption) ([]Alarm, error) {
	return n.own().Alarms(ctx, opts...)
}

// RaiseAlarm raises an alarm. It makes no revision, and works at the quota.
//
// Errors: ErrInvalidOption for an unknown kind; ErrNoSpace if a disk is full, ErrOverloaded: nothing was changed.
// ErrMaybeApplied as for Put; ErrClosed.
func (n *Node) RaiseAlarm(ctx context.Context, a Alarm) (*AlarmResponse, error) {
	return n.own().RaiseAlarm(ctx, a)
}

// ClearAlarm clears an alarm.
//
// Errors: those of RaiseAlarm.
func (n *Node) ClearAlarm(ctx context.Context, a Alarm) (*AlarmResponse, error) {
	return n.own().ClearAlarm(ctx, a)
}

// Alarms is [Node.Alarms]. The permission is checked in the state that the alarms are of.
//
// Errors: ErrPermissionDenied, ErrUserEmpty; those of Node.Alarms.
func (u *UserView) Alarms(ctx context.Context, opts ...MembersOption) ([]Alarm, error) {
	var o membersOptions
	for _, opt := range opts {
		opt.members(&o)
	}
	v, err := u.n.reads.view(ctx, &getOptions{serializable: o.serializable})
	if err == nil && u.as != nil {
		err = codeError(v.Auth.Guard(u.as).User())
	}
	if err != nil || len(v.Alarms) == 0 {
		return nil, err
	}
	alarms := make([]Alarm, len(v.Alarms))
	for i, a := range v.Alarms {
		alarms[i] = Alarm{MemberID(a.Member), AlarmKind(a.Kind)}
	}
	return alarms, nil
}

// RaiseAlarm is [Node.RaiseAlarm].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.RaiseAlarm.
func (u *UserView) RaiseAlarm(ctx context.Context, a Alarm) (*AlarmResponse, error) {
	return u.changeAlarm(ctx, a, false)
}

// ClearAlarm is [Node.ClearAlarm].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.ClearAlarm.
func (u *UserView) ClearAlarm(ctx context.Context, a Alarm) (*AlarmResponse, error) {
	return u.changeAlarm(ctx, a, true)
}

func (u *UserView) changeAlarm(ctx context.Context, a Alarm, clear bool) (*AlarmResponse, error) {
	if _, err := a.Kind.MarshalText(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrInvalidOption, a.Kind)
	}
	change := &command.Alarm{Member: uint64(a.Member), Kind: uint64(a.Kind), Clear: clear}
	r, err := u.n.command(ctx, &command.Command{As: u.as, Alarm: change})
	if err != nil {
		return nil, err
	}
	return &AlarmResponse{u.n.header(r.Revision), r.Count > 0}, nil
}
