// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"

	"github.com/coterie-kv/coterie"
)

// The recipes are the services that etcd implements with a client inside the server. Each call runs as its caller.
type recipes struct {
	*server
	conn   *inProcess
	shared map[*coterie.UserView]*clientv3.Client // for the users of many calls
}

func newRecipes(s *server) *recipes {
	r := &recipes{server: s, conn: newInProcess(), shared: map[*coterie.UserView]*clientv3.Client{}}
	s.from(delegated).registerStore(r.conn)
	for _, user := range []*coterie.UserView{s.noUser, s.own} {
		r.shared[user] = r.newClient(user)
	}
	return r
}

// client returns a client for a call, and a function that ends its use. Users do not share a client: its watches and
// renewals belong to the first call that needs them, and it cleans up with its own context.
func (r *recipes) client(ctx context.Context) (*clientv3.Client, func()) {
	user := r.user(ctx)
	if c := r.shared[user]; c != nil {
		return c, func() {}
	}
	c := r.newClient(user)
	return c, func() { _ = c.Close() } // the error is that its context has ended
}

// newClient returns a client that acts as a user. It dials nothing, and has only the services of a client itself.
func (r *recipes) newClient(user *coterie.UserView) *clientv3.Client {
	return direct(clientv3.NewCtxClient(r.actAs(context.Background(), user)), r.conn)
}

// A lockServer is the service Lock.
type lockServer struct {
	*recipes
	v3lockpb.UnsafeLockServer
}

func (s *lockServer) Lock(ctx context.Context, r *v3lockpb.LockRequest) (*v3lockpb.LockResponse, error) {
	c, end := s.client(ctx)
	defer end()
	return v3lock.NewLockServer(c).Lock(ctx, r)
}

func (s *lockServer) Unlock(ctx context.Context, r *v3lockpb.UnlockRequest) (*v3lockpb.UnlockResponse, error) {
	c, end := s.client(ctx)
	defer end()
	return v3lock.NewLockServer(c).Unlock(ctx, r)
}

// An electionServer is the service Election.
type electionServer struct {
	*recipes
	v3electionpb.UnsafeElectionServer
}

func (s *electionServer) Campaign(ctx context.Context, r *v3electionpb.CampaignRequest) (*v3electionpb.CampaignResponse, error) {
	c, end := s.client(ctx)
	defer end()
	return v3election.NewElectionServer(c).Campaign(ctx, r)
}

func (s *electionServer) Proclaim(ctx context.Context, r *v3electionpb.ProclaimRequest) (*v3electionpb.ProclaimResponse, error) {
	c, end := s.client(ctx)
	defer end()
	return v3election.NewElectionServer(c).Proclaim(ctx, r)
}

func (s *electionServer) Leader(ctx context.Context, r *v3electionpb.LeaderRequest) (*v3electionpb.LeaderResponse, error) {
	c, end := s.client(ctx)
	defer end()
	return v3election.NewElectionServer(c).Leader(ctx, r)
}

func (s *electionServer) Observe(r *v3electionpb.LeaderRequest, stream v3electionpb.Election_ObserveServer) error {
	c, end := s.client(stream.Context())
	defer end()
	return v3election.NewElectionServer(c).Observe(r, stream)
}

func (s *electionServer) Resign(ctx context.Context, r *v3electionpb.ResignRequest) (*v3electionpb.ResignResponse, error) {
	c, end := s.client(ctx)
	defer end()
	return v3election.NewElectionServer(c).Resign(ctx, r)
}
