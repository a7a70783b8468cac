// SPDX-License-Identifier: Apache-2.0

// Package docs_test compiles the samples of the documents. TestReadme of the module's root compares them
// with what the documents show.
package docs_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/docs/testdata/prometheus"
)

// The samples that are statements are functions here, which nothing calls.
var _ = []any{health, measure, (*prom)(nil), founder, config, joining, recovery, backup, restore, loadTLS, verifyMember, occupy}

// metrics.md

func health(n *coterie.Node) {
	http.Handle("/coterie/", http.StripPrefix("/coterie", coterie.HealthHandler(n)))
}

// A prom takes the metrics of one node. If several nodes share a process, give each a registerer that adds
// a label: prometheus.WrapRegistererWith.
type prom struct {
	registerer prometheus.Registerer
	made       map[coterie.Metric]prometheus.Collector
}

func (p *prom) Add(m coterie.Metric, delta float64) {
	collector(p, m, func() prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: string(m)})
	}).Add(delta)
}

func (p *prom) Set(m coterie.Metric, value float64) {
	collector(p, m, func() prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: string(m)})
	}).Set(value)
}

func (p *prom) Observe(m coterie.Metric, value float64) {
	collector(p, m, func() prometheus.Histogram {
		buckets := prometheus.ExponentialBuckets(1, 4, 16)
		if strings.HasSuffix(string(m), "_seconds") {
			buckets = prometheus.ExponentialBuckets(0.0001, 2, 18)
		}
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: string(m), Buckets: buckets})
	}).Observe(value)
}

// collector returns the collector of a metric. It makes and registers it at the first call.
func collector[C prometheus.Collector](p *prom, m coterie.Metric, create func() C) C {
	if p.made[m] == nil {
		c := create()
		p.registerer.MustRegister(c)
		p.made[m] = c
	}
	return p.made[m].(C)
}

func measure(cfg coterie.Config, registerer prometheus.Registerer) {
	cfg.Metrics = &prom{registerer, map[coterie.Metric]prometheus.Collector{}}
}

// operations.md

func founder(tls *tls.Config, logger *slog.Logger, metrics coterie.Metrics) coterie.Config {
	cfg := coterie.Config{
		Cluster:   "orders",          // distinguishes this cluster from others
		Name:      "a",               // for ever: the member's ID follows from it
		Dir:       "/var/lib/orders", // for ever, and for this node alone
		Addr:      ":7400",
		Advertise: "a.internal:7400", // a name is better than an IP address, which changes
		Founders: []coterie.Founder{
			{Name: "a", Addr: "a.internal:7400"},
			{Name: "b", Addr: "b.internal:7400"},
			{Name: "c", Addr: "c.internal:7400"},
		},
		TLS: tls, Logger: logger, Metrics: metrics,
	}
	return cfg
}

// config returns the configuration of a pod. The first three pods found the cluster, later ones join it.
// Once the cluster is founded, set JOIN=true in the manifest: then all of them join.
func config(pod string) coterie.Config {
	addr := func(pod string) string { return pod + ".orders-peers.shop.svc.cluster.local:7400" }
	cfg := coterie.Config{
		Cluster: "orders", Name: pod, Dir: "/var/lib/coterie", Addr: ":7400", Advertise: addr(pod),
	}
	founder := false
	for _, name := range []string{"orders-0", "orders-1", "orders-2"} {
		cfg.Founders = append(cfg.Founders, coterie.Founder{Name: name, Addr: addr(name)})
		founder = founder || name == pod
	}
	if !founder || os.Getenv("JOIN") == "true" {
		for _, p := range cfg.Founders {
			cfg.Join = append(cfg.Join, p.Addr)
		}
		cfg.Founders = nil
	}
	return cfg
}

func joining(dir string, tls *tls.Config) coterie.Config {
	cfg := coterie.Config{
		Cluster: "orders", Name: "d", Dir: dir, Addr: ":7400", Advertise: "d.internal:7400",
		Join: []string{"a.internal:7400", "b.internal:7400"}, TLS: tls,
	}
	return cfg
}

func recovery(ctx context.Context, best string, dirs []string) error {
	var all []datadir.Inspection
	for _, dir := range dirs {
		in, err := datadir.Inspect(ctx, dir)
		if err != nil {
			return err
		}
		all = append(all, in)
	}
	r, err := datadir.Recover(ctx, best, all...)
	if err != nil {
		return err
	}
	fmt.Println(r)
	return nil
}

func backup(ctx context.Context, n *coterie.Node, w io.Writer) error {
	if err := n.Ready(ctx); err != nil { // so that the backup has everything that was answered until now
		return err
	}
	header, err := n.Backup(ctx, w) // to a file or an upload, while writes go on
	fmt.Println(header.Revision)
	return err
}

func restore(ctx context.Context, dir string, file io.Reader) (*coterie.Node, error) {
	cfg := coterie.Config{Name: "trial", Dir: dir} // a directory that does not exist
	if err := coterie.RestoreBackup(ctx, file, cfg); err != nil {
		return nil, err
	}
	return coterie.Open(ctx, cfg)
}

// tls.md

func loadTLS(cfg *coterie.Config) error {
	tls, err := coterie.LoadTLS("ca.pem", "cert.pem", "key.pem") // read again when they change
	if err != nil {
		return err
	}
	cfg.TLS = tls // every node of the cluster, or none
	return nil
}

func verifyMember(cfg *coterie.Config) {
	cfg.Name = "a" // subjectAltName=DNS:a,DNS:a.internal,IP:10.0.0.1
	cfg.VerifyMember = coterie.VerifyMemberName
}

// recipes.md

// occupy gives a session a key that does not exist, and returns the guard of it.
func occupy(ctx context.Context, s *coterie.Session, key string) (coterie.Comparison, error) {
	mark := rand.Text() // no other call has the same
	free := coterie.Compare(coterie.CreateRevision(key), coterie.Equal, 0)
	put := coterie.OpPut(key, mark, coterie.WithLease(s.Lease()))
	ours := coterie.Compare(coterie.Value(key), coterie.Equal, mark)
	undo := coterie.OpTxn([]coterie.Comparison{ours}, []coterie.Op{coterie.OpDelete(key)}, nil)
	r, err := s.CommitOrUndo(s.Node().Txn(ctx).If(free).Then(put).Else(coterie.OpGet(key)), undo)
	switch {
	case err != nil:
		return coterie.Comparison{}, err
	case !r.Succeeded:
		return coterie.Comparison{}, coterie.NewHeldError(key, r.Responses[0].Get.KVs[0], coterie.ErrLocked)
	}
	return coterie.Compare(coterie.CreateRevision(key), coterie.Equal, r.Revision), nil
}
