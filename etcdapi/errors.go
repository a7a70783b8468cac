// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie"
)

// wireErrors maps errors of coterie to those of etcd, which clients recognize by their text. The first match
// counts, so an error that others wrap comes after those.
var wireErrors = []struct{ of, wire error }{
	{coterie.ErrEmptyKey, rpctypes.ErrGRPCEmptyKey},
	{coterie.ErrKeyNotFound, rpctypes.ErrGRPCKeyNotFound},
	{coterie.ErrDuplicateKey, rpctypes.ErrGRPCDuplicateKey},
	{coterie.ErrTooManyOps, rpctypes.ErrGRPCTooManyOps},
	{coterie.ErrTooLarge, rpctypes.ErrGRPCRequestTooLarge},
	{coterie.ErrCompacted, rpctypes.ErrGRPCCompacted},
	{coterie.ErrFutureRevision, rpctypes.ErrGRPCFutureRev},
	{coterie.ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound},
	{coterie.ErrLeaseExists, rpctypes.ErrGRPCLeaseExist},
	{coterie.ErrTTLRange, rpctypes.ErrGRPCLeaseTTLTooLarge},
	{coterie.ErrNoSpace, rpctypes.ErrGRPCNoSpace},
	// etcd sends the client's form of this error, which has no code.
	{coterie.ErrOverloaded, rpctypes.ErrTooManyRequests},
	{coterie.ErrMemberNotFound, rpctypes.ErrGRPCMemberNotFound},
	{coterie.ErrMemberExists, rpctypes.ErrGRPCPeerURLExist},
	{coterie.ErrMemberNotReady, rpctypes.ErrGRPCLearnerNotReady},
	{coterie.ErrUnhealthy, rpctypes.ErrGRPCUnhealthy},
	{coterie.ErrRootUserNotExist, rpctypes.ErrGRPCRootUserNotExist},
	{coterie.ErrRootRoleNotExist, rpctypes.ErrGRPCRootRoleNotExist},
	{coterie.ErrUserExists, rpctypes.ErrGRPCUserAlreadyExist},
	{coterie.ErrUserEmpty, rpctypes.ErrGRPCUserEmpty},
	{coterie.ErrUserNotFound, rpctypes.ErrGRPCUserNotFound},
	{coterie.ErrRoleExists, rpctypes.ErrGRPCRoleAlreadyExist},
	{coterie.ErrRoleEmpty, rpctypes.ErrGRPCRoleEmpty},
	{coterie.ErrRoleNotFound, rpctypes.ErrGRPCRoleNotFound},
	{coterie.ErrRoleNotGranted, rpctypes.ErrGRPCRoleNotGranted},
	{coterie.ErrPermissionNotGranted, rpctypes.ErrGRPCPermissionNotGranted},
	{coterie.ErrPermissionDenied, rpctypes.ErrGRPCPermissionDenied},
	{coterie.ErrAuthFailed, rpctypes.ErrGRPCAuthFailed},
	{coterie.ErrAuthNotEnabled, rpctypes.ErrGRPCAuthNotEnabled},
	{coterie.ErrAuthOldRevision, rpctypes.ErrGRPCAuthOldRevision},
	{coterie.ErrInvalidAuthToken, rpctypes.ErrGRPCInvalidAuthToken},
	{coterie.ErrInvalidAuthMgmt, rpctypes.ErrGRPCInvalidAuthMgmt},
	// etcd has no code for this one.
	{coterie.ErrNoPasswordUser, status.Error(codes.Unknown, "auth: authentication failed, password was given for no password user")},
	{coterie.ErrCorrupt, rpctypes.ErrGRPCCorrupt},
	{coterie.ErrClosed, rpctypes.ErrGRPCStopped},
	{errTimeout, rpctypes.ErrGRPCTimeout},
	{context.Canceled, status.FromContextError(context.Canceled).Err()},
	{context.DeadlineExceeded, status.FromContextError(context.DeadlineExceeded).Err()},
	{coterie.ErrNoLeader, rpctypes.ErrGRPCNoLeader},
}

// toStatus returns the error that a client gets: with a code, and with etcd's text if etcd has one.
func toStatus(err error) error {
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err
	}
	for _, e := range wireErrors {
		if errors.Is(err, e.of) {
			err = e.wire
			break
		}
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, coterie.ErrInvalidOption) {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return status.Error(codes.Unknown, err.Error())
}
