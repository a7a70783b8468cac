// SPDX-License-Identifier: Apache-2.0

package command

import "github.com/coterie-kv/coterie/internal/wire"

// Auth changes the users, the roles or the permissions of roles, or turns the checks on or off. The action
// says which of the other fields count.
type Auth struct {
	Action     AuthAction
	User, Role string
	Permission Permission // to grant; a revocation ignores the access
	Hash       string     // of the user's password; of AuthSecret: the secret
	NoPassword bool       // the user cannot authenticate with a password
}

// An AuthAction is the kind of an Auth. A reader rejects an unknown one, because a node must not skip it.
type AuthAction uint8

// The actions. Their numbers are part of the log's format.
const (
	AuthEnable AuthAction = iota + 1
	AuthDisable
	UserAdd
	UserDelete
	UserChangePassword
	UserGrantRole
	UserRevokeRole
	RoleAdd
	RoleDelete
	RoleGrantPermission
	RoleRevokePermission
	AuthSecret
)

// A Permission allows access to a key, or to the range from Key to End.
type Permission struct {
	Access   Access
	Key, End string
}

// An Access is a kind of access to keys. The numbers are those of etcd's permission types.
type Access uint8

// The kinds of access.
const (
	Read Access = iota
	Write
	ReadWrite
)

// Append appends the encoding of an Auth to b.
func (a *Auth) Append(b []byte) []byte {
	b = wire.Uint(b, 1, uint64(a.Action))
	b = wire.Text(b, 2, a.User)
	b = wire.Text(b, 3, a.Role)
	if a.Permission != (Permission{}) {
		b = wire.Message(b, 4, a.Permission.Append)
	}
	b = wire.Text(b, 5, a.Hash)
	return wire.Bool(b, 6, a.NoPassword)
}

func (a *Auth) decode(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			a.Action = action(r.Uint())
		case 2:
			a.User = r.Text()
		case 3:
			a.Role = r.Text()
		case 4:
			if err := a.Permission.Decode(r.Bytes()); err != nil {
				return err
			}
		case 5:
			a.Hash = r.Text()
		case 6:
			a.NoPassword = r.Bool()
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	return judgeAuth(a.Action, a.Permission.Access)
}

// action returns the action with a number, or 0 if this version does not know it.
func action(number uint64) AuthAction {
	if number > uint64(AuthSecret) {
		return 0
	}
	return AuthAction(number)
}

// access returns the access with a number, or one that judgeAuth rejects.
func access(number uint64) Access {
	return Access(min(number, uint64(ReadWrite)+1))
}

// judgeAuth is the check of an Auth for both decoding and Check. A later version may know more actions and
// kinds of access.
func judgeAuth(a AuthAction, to Access) error {
	if a == 0 || to > ReadWrite {
		return ErrUnknown
	}
	return nil
}

// checkAuth is decode without allocations.
func checkAuth(b []byte) error {
	var a AuthAction
	var to Access
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			a = action(r.Uint())
		case 4:
			to = Read
			p := wire.NewReader(r.Bytes())
			for p.Next() {
				if p.Field() == 1 {
					to = access(p.Uint())
				}
			}
			if p.Err() != nil {
				return p.Err()
			}
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	return judgeAuth(a, to)
}

// Append appends the encoding of a Permission to b.
func (p *Permission) Append(b []byte) []byte {
	b = wire.Uint(b, 1, uint64(p.Access))
	b = wire.Text(b, 2, p.Key)
	return wire.Text(b, 3, p.End)
}

// Decode reads a Permission. Its strings are copies.
func (p *Permission) Decode(b []byte) error {
	*p = Permission{}
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			p.Access = access(r.Uint())
		case 2:
			p.Key = r.Text()
		case 3:
			p.End = r.Text()
		}
	}
	return r.Err()
}
