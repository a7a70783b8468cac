// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// An endpoint is a listener of the daemon, and the function that serves it.
type endpoint struct {
	url      *url.URL
	listener net.Listener
	serve    serveFunc
	opts     []etcdapi.Option
}

// A serveFunc is a function of package etcdapi that serves a listener.
type serveFunc func(ctx context.Context, l net.Listener, n *coterie.Node, opts ...etcdapi.Option) error

// endpoints has all listeners of a daemon. run may be called once.
type endpoints struct {
	all []endpoint
	log *slog.Logger
}

// openEndpoints opens all listeners, or none.
func openEndpoints(s *Settings, m *etcdapi.Metrics, log *slog.Logger) (_ *endpoints, err error) {
	e := &endpoints{log: log}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	tls, err := s.clientTLS()
	if err != nil {
		return nil, err
	}
	common, err := s.endpointOptions(m)
	if err != nil {
		return nil, err
	}
	check, debug := etcdapi.WithCorruptionCheck(s.Checks.interval()), s.debugOptions()
	for _, kind := range []struct {
		flag  string
		urls  urlList
		serve serveFunc
		debug []etcdapi.Option
	}{
		{"listen-client-urls", s.Listen.Client, etcdapi.Serve, debug},
		{"listen-client-http-urls", s.Listen.ClientHTTP, etcdapi.ServeHTTP, debug},
		{"listen-metrics-urls", s.Listen.Metrics, etcdapi.ServeMetrics, nil}, // as in etcd, without the debug paths, because more programs may reach it
	} {
		for _, u := range kind.urls {
			opts := slices.Concat(common, kind.debug)
			if len(e.all) == 0 { // one endpoint is enough
				opts = append(opts, check)
			}
			if err = e.open(u, tls, kind.serve, opts); err != nil {
				return nil, fmt.Errorf("--%s: %w", kind.flag, err)
			}
		}
	}
	return e, nil
}

// endpointOptions returns the options that all endpoints have.
func (s *Settings) endpointOptions(m *etcdapi.Metrics) ([]etcdapi.Option, error) {
	opts := []etcdapi.Option{
		etcdapi.WithName(s.Name), etcdapi.WithPeerURLs(s.Cluster.AdvertisePeer.strings()...),
		etcdapi.WithClientURLs(s.Listen.AdvertiseClient.strings()...),
		etcdapi.WithMetrics(m), etcdapi.WithHosts(s.Hosts...), etcdapi.WithOrigins(s.Origins...),
		etcdapi.WithMaxStreams(uint32(s.MaxStreams)),
		etcdapi.WithKeepalive(s.KeepAlive.MinTime, s.KeepAlive.Interval, s.KeepAlive.Timeout),
	}
	if s.ProgressNotify > 0 {
		opts = append(opts, etcdapi.WithProgressInterval(s.ProgressNotify))
	}
	if len(s.Listen.ClientHTTP) > 0 {
		opts = append(opts, etcdapi.WithoutHTTP())
	}
	users, err := s.userOptions()
	return append(opts, users...), err
}

// debugOptions returns the options of the paths below /debug/. As in etcd, the log level debug adds the profiles, too.
func (s *Settings) debugOptions() []etcdapi.Option {
	opts := []etcdapi.Option{etcdapi.WithDebugVars()}
	debug := s.Log.Level == "debug"
	if s.Pprof || debug {
		opts = append(opts, etcdapi.WithPprof())
	}
	if debug {
		opts = append(opts, etcdapi.WithTraces())
	}
	return opts
}

// userOptions returns the options about tokens and passwords. As in etcd, the common names of certificates are names of
// users with --client-cert-auth alone.
func (s *Settings) userOptions() ([]etcdapi.Option, error) {
	opts := []etcdapi.Option{etcdapi.WithBcryptCost(int(s.Users.BcryptCost)), etcdapi.WithCommonNames(s.Client.ClientCertAuth)}
	if s.Users.Token == "simple" {
		ttl := time.Duration(cmp.Or(s.Users.TTLSeconds, defaultTokenSeconds)) * time.Second
		return append(opts, etcdapi.WithTokenTTL(ttl)), nil
	}
	jwt, err := etcdapi.LoadJWT(s.Users.Token)
	if err != nil {
		return nil, fmt.Errorf("--auth-token: %w", err)
	}
	return append(opts, etcdapi.WithJWT(jwt)), nil
}

// defaultTokenSeconds is etcd's.
const defaultTokenSeconds = 300

// open opens the listener of a URL.
func (e *endpoints) open(u *url.URL, cfg *tls.Config, serve serveFunc, opts []etcdapi.Option) error {
	l, err := listen(u)
	if err != nil {
		return err
	}
	one := endpoint{url: u, listener: l, serve: serve, opts: opts[:len(opts):len(opts)]}
	switch {
	case usesTLS(u):
		one.opts = append(one.opts, etcdapi.WithTLS(cfg))
	case cfg != nil:
		e.log.Warn("scheme is http or unix while key and cert files are present; ignoring key and cert files", "url", u.String())
	}
	e.all = append(e.all, one)
	return nil
}

// listen opens the listener of a URL. It replaces the file of a socket that an earlier process has left behind.
func listen(u *url.URL) (net.Listener, error) {
	if !isUnix(u) {
		return net.Listen("tcp", address(u))
	}
	if c, err := net.Dial("unix", address(u)); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen unix %s: another process listens there", address(u))
	}
	switch info, err := os.Lstat(address(u)); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("listen unix %s: the file there is not a socket: name another path, or remove the file", address(u))
	default:
		if err := os.Remove(address(u)); err != nil {
			return nil, err
		}
	}
	return net.Listen("unix", address(u))
}

// close closes the listeners of endpoints that are not served.
func (e *endpoints) close() {
	for _, one := range e.all {
		one.listener.Close()
	}
}

// run serves all endpoints until ctx ends or the node has stopped, and returns when all calls have returned. After the
// first error it stops the other endpoints and returns.
func (e *endpoints) run(ctx context.Context, n *coterie.Node) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	errs := make([]error, len(e.all))
	var running sync.WaitGroup
	for i, one := range e.all {
		if usesTLS(one.url) {
			e.log.Info("serving client traffic securely", "url", one.url.String(), "address", one.listener.Addr().String())
		} else {
			e.log.Info("serving client traffic insecurely; this is strongly discouraged!", "url", one.url.String(), "address", one.listener.Addr().String())
		}
		running.Go(func() {
			defer stop()
			if err := one.serve(ctx, one.listener, n, one.opts...); err != nil {
				errs[i] = fmt.Errorf("serving %s: %w", one.url, err)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}
