// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"encoding/base64"
	"errors"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/coterie-kv/coterie"
)

// An authServer is the service Auth.
type authServer struct {
	*server
	pb.UnsafeAuthServer
}

func (s *authServer) AuthEnable(ctx context.Context, _ *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).AuthEnable(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.AuthEnableResponse{Header: s.answerHeader(resp.Header)}, nil
}

func (s *authServer) AuthDisable(ctx context.Context, _ *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).AuthDisable(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.AuthDisableResponse{Header: s.answerHeader(resp.Header)}, nil
}

func (s *authServer) AuthStatus(ctx context.Context, _ *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).AuthStatus(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.AuthStatusResponse{Header: s.answerHeader(resp.Header), Enabled: resp.Enabled, AuthRevision: resp.AuthRevision}, nil
}

// Authenticate returns a token for a user. It ignores the token of the call, so that a client can replace an expired
// one.
func (s *authServer) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	defer forget(&r.Password)
	for {
		var slow error // the reason if the password was not compared
		resp, err := s.node.Authenticate(ctx, r.Name, func(hash []byte) error {
			var same bool
			same, slow = s.comparePassword(ctx, r.Name, hash, r.Password)
			if slow == nil && !same {
				return coterie.ErrAuthFailed
			}
			return slow
		})
		switch {
		case slow != nil:
			return nil, slow
		case err != nil:
			return nil, err
		}
		token, err := s.newToken(ctx, r.Name, resp.AuthRevision)
		switch {
		case errors.Is(err, coterie.ErrAuthOldRevision), errors.Is(err, coterie.ErrUserNotFound):
			continue // the user has changed since
		case err != nil:
			return nil, err
		}
		return &pb.AuthenticateResponse{Header: s.answerHeader(resp.Header), Token: token}, nil
	}
}

// forget removes a password from a request, because traces of gRPC keep requests for some time: CVE-2021-28235.
func forget(password *string) { *password = "" }

// newToken returns a token for a user that has authenticated at a revision.
func (s *server) newToken(ctx context.Context, name string, revision uint64) (string, error) {
	if s.jwt != nil {
		return s.jwt.issue(name, revision)
	}
	return s.node.NewToken(ctx, name, revision, s.tokenTTL)
}

// UserAdd hashes the password before it proposes the change. Hashing is slow, so it first checks that the caller may
// add users.
func (s *authServer) UserAdd(ctx context.Context, r *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	defer forget(&r.Password)
	var opts []coterie.UserOption
	if !r.GetOptions().GetNoPassword() {
		if err := s.user(ctx).RequireRoot(ctx); err != nil {
			return nil, err
		}
		hash, err := s.hashPassword(ctx, r.Password)
		if err != nil {
			return nil, err
		}
		opts = append(opts, coterie.WithPasswordHash(hash))
	}
	resp, err := s.user(ctx).UserAdd(ctx, r.Name, opts...)
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserAddResponse{Header: s.answerHeader(resp.Header)}, nil
}

// UserChangePassword takes a password, or the hash of one.
func (s *authServer) UserChangePassword(ctx context.Context, r *pb.AuthUserChangePasswordRequest) (*pb.AuthUserChangePasswordResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	defer forget(&r.Password)
	if err := s.user(ctx).RequireRoot(ctx); err != nil {
		return nil, err
	}
	var hash []byte
	var err error
	if r.Password != "" {
		hash, err = s.hashPassword(ctx, r.Password)
	} else if hash, err = base64.StdEncoding.DecodeString(r.HashedPassword); err != nil {
		err = coterie.ErrNoPasswordUser // as etcd calls it
		if _, missing := s.user(ctx).UserGet(ctx, r.Name); missing != nil {
			err = missing
		}
	}
	if err != nil {
		return nil, err
	}
	resp, err := s.user(ctx).UserChangePassword(ctx, r.Name, hash)
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserChangePasswordResponse{Header: s.answerHeader(resp.Header)}, nil
}

func (s *authServer) UserGet(ctx context.Context, r *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).UserGet(ctx, r.Name)
	if r.Name == "" && errors.Is(err, coterie.ErrUserEmpty) {
		err = coterie.ErrUserNotFound // in etcd, no user may get the user without a name
	}
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserGetResponse{Header: s.answerHeader(resp.Header), Roles: resp.Roles}, nil
}

func (s *authServer) UserList(ctx context.Context, _ *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).UserList(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserListResponse{Header: s.answerHeader(resp.Header), Users: resp.Users}, nil
}

func (s *authServer) UserDelete(ctx context.Context, r *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).UserDelete(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserDeleteResponse{Header: s.answerHeader(resp.Header)}, nil
}

func (s *authServer) UserGrantRole(ctx context.Context, r *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).UserGrantRole(ctx, r.User, r.Role)
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserGrantRoleResponse{Header: s.answerHeader(resp.Header)}, nil
}

func (s *authServer) UserRevokeRole(ctx context.Context, r *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).UserRevokeRole(ctx, r.Name, r.Role)
	if err != nil {
		return nil, err
	}
	return &pb.AuthUserRevokeRoleResponse{Header: s.answerHeader(resp.Header)}, nil
}

func (s *authServer) RoleAdd(ctx context.Context, r *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).RoleAdd(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleAddResponse{Header: s.answerHeader(resp.Header)}, nil
}

func (s *authServer) RoleGet(ctx context.Context, r *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).RoleGet(ctx, r.Role)
	if err != nil {
		return nil, err
	}
	out := &pb.AuthRoleGetResponse{Header: s.answerHeader(resp.Header)}
	for _, p := range resp.Permissions {
		out.Perm = append(out.Perm, &authpb.Permission{
			PermType: authpb.Permission_Type(p.Type), Key: bytes(p.Key), RangeEnd: bytes(p.RangeEnd),
		})
	}
	return out, nil
}

func (s *authServer) RoleList(ctx context.Context, _ *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).RoleList(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleListResponse{Header: s.answerHeader(resp.Header), Roles: resp.Roles}, nil
}

func (s *authServer) RoleDelete(ctx context.Context, r *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).RoleDelete(ctx, r.Role)
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleDeleteResponse{Header: s.answerHeader(resp.Header)}, nil
}

func (s *authServer) RoleGrantPermission(ctx context.Context, r *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if r.Perm == nil {
		if err := s.user(ctx).RequireRoot(ctx); err != nil {
			return nil, err
		}
		return nil, rpctypes.ErrGRPCPermissionNotGiven
	}
	resp, err := s.user(ctx).RoleGrantPermission(
		ctx, r.Name, coterie.PermissionType(r.Perm.PermType), string(r.Perm.Key), rangeOptions(r.Perm.RangeEnd)...)
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleGrantPermissionResponse{Header: s.answerHeader(resp.Header)}, nil
}

func (s *authServer) RoleRevokePermission(ctx context.Context, r *pb.AuthRoleRevokePermissionRequest) (*pb.AuthRoleRevokePermissionResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	resp, err := s.user(ctx).RoleRevokePermission(ctx, r.Role, string(r.Key), rangeOptions(r.RangeEnd)...)
	if err != nil {
		return nil, err
	}
	return &pb.AuthRoleRevokePermissionResponse{Header: s.answerHeader(resp.Header)}, nil
}

// rangeOptions returns the options of a range that begins with a key and ends with end.
func rangeOptions(end []byte) []coterie.RangeOption {
	if len(end) == 0 {
		return nil
	}
	return []coterie.RangeOption{coterie.WithRange(string(end))}
}
