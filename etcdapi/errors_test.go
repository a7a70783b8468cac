// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie"
)

func TestErrorsOfNodesBecomeEtcds(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{&coterie.CompactedError{Revision: 3}, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{coterie.ErrNoSpace, codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded"},
		{coterie.ErrOverloaded, codes.Unknown, "etcdserver: too many requests"},
		{coterie.ErrUnhealthy, codes.Unavailable, "etcdserver: unhealthy cluster"},
		{coterie.ErrMemberNotFound, codes.NotFound, "etcdserver: member not found"},
		{coterie.ErrCorrupt, codes.DataLoss, "etcdserver: corrupt cluster"},
		{coterie.ErrClosed, codes.Unavailable, "etcdserver: server stopped"},
		{coterie.ErrNoLeader, codes.Unavailable, "etcdserver: no leader"},
		{fmt.Errorf("%w: %w", coterie.ErrMaybeApplied, coterie.ErrClosed), codes.Unavailable, "etcdserver: server stopped"},
		{fmt.Errorf("%w: %w", coterie.ErrMaybeApplied, errTimeout), codes.Unavailable, "etcdserver: request timed out"},
		{errors.Join(errTimeout, coterie.ErrNoLeader), codes.Unavailable, "etcdserver: request timed out"},
		{fmt.Errorf("%w: %w", coterie.ErrMaybeApplied, context.Canceled), codes.Canceled, "context canceled"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "context deadline exceeded"},
		{fmt.Errorf("%w: why", coterie.ErrInvalidOption), codes.InvalidArgument, "coterie: invalid option: why"},
		{errors.New("election: no leader"), codes.Unknown, "election: no leader"},
		{rpctypes.ErrLeaseNotFound, codes.Unknown, "etcdserver: requested lease not found"},
		{rpctypes.ErrGRPCNotLeader, codes.FailedPrecondition, "etcdserver: not leader"},
	} {
		err := toStatus(c.err)
		require.Equal(t, c.code, status.Code(err), "%v", c.err)
		require.Equal(t, c.text, status.Convert(err).Message())
	}
}
