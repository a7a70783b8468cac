// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coterie-kv/coterie/etcdapi/internal/subcommand"
)

// An endpoint is the flags about a running endpoint, which are etcdctl's.
type endpoint struct {
	url                string
	tls                transport.TLSInfo
	user, password     string
	dialTimeout        time.Duration
	insecureSkipVerify bool
}

func (e *endpoint) flags(set *flag.FlagSet) {
	set.StringVar(&e.url, "endpoints", "127.0.0.1:2379", "the `URL` of one endpoint")
	set.StringVar(&e.tls.TrustedCAFile, "cacert", "", "verify the endpoint with the CAs in this `file`")
	set.StringVar(&e.tls.CertFile, "cert", "", "identify to the endpoint with the certificate in this `file`")
	set.StringVar(&e.tls.KeyFile, "key", "", "the `file` with the key of --cert")
	set.BoolVar(&e.insecureSkipVerify, "insecure-skip-tls-verify", false, "do not verify the certificate of the endpoint")
	set.StringVar(&e.user, "user", "", "`NAME:PASSWORD`, or the name alone with --password")
	set.StringVar(&e.password, "password", "", "the `password` of --user")
	set.DurationVar(&e.dialTimeout, "dial-timeout", 2*time.Second, "how long to wait for a connection")
}

func (e *endpoint) config() (clientv3.Config, error) {
	cfg := clientv3.Config{Endpoints: []string{e.url}, DialTimeout: e.dialTimeout, Logger: zap.NewNop(), Username: e.user, Password: e.password}
	switch {
	case strings.Contains(e.url, ","):
		return cfg, subcommand.Usage("snapshot must be requested to one selected node, not multiple: --endpoints has %s", e.url)
	case e.password == "" && e.user != "":
		name, password, ok := strings.Cut(e.user, ":")
		if !ok {
			return cfg, subcommand.Usage("--user %s has no password: add it as NAME:PASSWORD, or give --password", e.user)
		}
		cfg.Username, cfg.Password = name, password
	}
	if !e.tls.Empty() || e.tls.TrustedCAFile != "" {
		var err error
		if cfg.TLS, err = e.tls.ClientConfig(); err != nil {
			return cfg, err
		}
	}
	if cfg.TLS == nil && (e.insecureSkipVerify || strings.HasPrefix(e.url, "https://")) {
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if cfg.TLS != nil {
		cfg.TLS.InsecureSkipVerify = e.insecureSkipVerify
	}
	return cfg, nil
}

// copy writes the snapshot that the endpoint sends.
func (e *endpoint) copy(ctx context.Context, w, _ io.Writer) error {
	cfg, err := e.config()
	if err != nil {
		return err
	}
	c, err := clientv3.New(cfg) // with a user, it waits for a token
	if err != nil {
		return fmt.Errorf("endpoint %s: %w", e.url, err)
	}
	defer c.Close() // the snapshot is complete, or has failed
	// Snapshot waits for a connection as long as ctx allows.
	connecting, cancel := context.WithTimeout(ctx, e.dialTimeout)
	defer cancel()
	if _, err := c.Status(connecting, e.url); err != nil {
		return fmt.Errorf("endpoint %s: %w", e.url, err)
	}
	r, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}
