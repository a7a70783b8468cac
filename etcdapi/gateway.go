// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	pbgw "go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	electiongw "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb/gw"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	lockgw "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb/gw"
	"google.golang.org/protobuf/encoding/protojson"
)

// gateway returns the handler of the JSON interface. It calls the services in the process, with the metadata that the
// headers of the request have.
func (s *server) gateway() http.Handler {
	conn := newInProcess()
	s.from(gateway).registerAll(conn)
	mux := runtime.NewServeMux(runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.HTTPBodyMarshaler{
		Marshaler: &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		},
	}))
	ctx := context.Background()
	for _, err := range []error{
		pbgw.RegisterKVHandlerClient(ctx, mux, pb.NewKVClient(conn)),
		pbgw.RegisterWatchHandlerClient(ctx, mux, pb.NewWatchClient(conn)),
		pbgw.RegisterLeaseHandlerClient(ctx, mux, pb.NewLeaseClient(conn)),
		pbgw.RegisterClusterHandlerClient(ctx, mux, pb.NewClusterClient(conn)),
		pbgw.RegisterMaintenanceHandlerClient(ctx, mux, pb.NewMaintenanceClient(conn)),
		pbgw.RegisterAuthHandlerClient(ctx, mux, pb.NewAuthClient(conn)),
		lockgw.RegisterLockHandlerClient(ctx, mux, v3lockpb.NewLockClient(conn)),
		electiongw.RegisterElectionHandlerClient(ctx, mux, v3electionpb.NewElectionClient(conn)),
	} {
		if err != nil {
			panic(fmt.Sprintf("etcdapi: the paths are constants, and one is invalid: %v", err))
		}
	}
	// A message as JSON is at most twice as long as in gRPC, except for escapes and white space.
	limit := 2 * int64(maxMessage(s.limits))
	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Content-Type", "application/json") // every other value means the same, and package runtime would log it
		// With full duplex, a client of HTTP/1.1 can read the answers of a stream before it has sent all requests.
		// HTTP/2 returns an error, because it is always full duplex.
		_ = http.NewResponseController(w).EnableFullDuplex()
		body := &countedBody{ReadCloser: http.MaxBytesReader(w, r.Body, limit), in: s.receipt}
		defer body.release()
		r.Body = body
		mux.ServeHTTP(w, r)
	})
	return s.withoutCommonNames(&socketGateway{plain: plain, streams: mux, limit: limit, allowed: s.socketAllowed, running: s.sockets})
}

// textCommonName is etcd's.
const textCommonName = "CommonName of client sending a request against gateway will be ignored and not used as expected"

// withoutCommonNames rejects the requests of clients with a certificate that names a user over gRPC, while permissions are
// checked. A client may expect that the name counts, but over HTTP it does not.
func (s *server) withoutCommonNames(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.commonNames && r.TLS != nil && slices.ContainsFunc(r.TLS.VerifiedChains, hasCommonName) && s.checked() {
			http.Error(w, textCommonName, http.StatusBadRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func hasCommonName(chain []*x509.Certificate) bool {
	return len(chain) > 0 && chain[0].Subject.CommonName != ""
}
