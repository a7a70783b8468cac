// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestMetricsAreThoseOfEtcd compares the names, types and texts of all metrics of etcd that an endpoint has.
func TestMetricsAreThoseOfEtcd(t *testing.T) {
	etcd, node := endpoints(t)
	for _, e := range []*endpoint{etcd, node} {
		_, err := e.kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
		require.NoError(t, err)
		for _, path := range []string{"/health", "/livez", "/readyz"} {
			curl(t, e, path)
		}
	}
	known, have := metricsOf(t, etcd), metricsOf(t, node)
	compared := 0
	for name, got := range have {
		if strings.HasPrefix(name, "etcd_") || strings.HasPrefix(name, "grpc_") {
			assert.Equal(t, known[name], got, name)
			compared++
		}
	}
	require.Greater(t, compared, 30)
}

// metricsOf returns the help and the type of each metric, by name.
func metricsOf(t *testing.T, e *endpoint) map[string]string {
	resp, err := http.Get("http://" + e.conn.Target() + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	all := map[string]string{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if fields := strings.SplitN(lines.Text(), " ", 4); len(fields) == 4 && fields[0] == "#" {
			all[fields[2]] += fields[1] + " " + fields[3] + "\n"
		}
	}
	return all
}
