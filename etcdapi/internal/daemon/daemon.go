// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

// Run runs a daemon until ctx ends, and returns the exit code of the process: 0 after the end of ctx and for a member
// that its cluster has removed, 1 after an error, which it has printed or logged in a line. When ctx ends, a leader
// hands over before the daemon stops.
func Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	s, err := Parse(args, environ)
	switch {
	case errors.Is(err, flag.ErrHelp):
		writeUsage(stdout)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "coteried: %v\n", err)
		return 1
	case s.Version:
		writeVersion(stdout)
		return 0
	}
	log, closeLog, err := newLogger(&s.Log, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "coteried: %v\n", err)
		return 1
	}
	defer closeLog()
	d := &daemon{settings: s, log: log, notifySocket: lookup(environ, "NOTIFY_SOCKET")}
	err = d.run(ctx)
	switch {
	case err == nil, ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		log.Info("coteried has stopped")
		return 0
	case errors.Is(err, coterie.ErrMemberNotFound):
		log.Warn("the member has been permanently removed from the cluster; remove its data directory", "data-dir", s.DataDir, "err", err)
		return 0
	}
	log.Error("coteried stops", "err", err)
	return 1
}

// A daemon is a node with its endpoints. One goroutine runs it.
type daemon struct {
	settings     *Settings
	log          *slog.Logger
	notifySocket string
	plan         bootstrap.Plan
}

func (d *daemon) run(ctx context.Context) error {
	s := d.settings
	d.log.Info("starting coteried", "version", ownVersion(), "name", s.Name, "data-dir", s.DataDir,
		"listen-peer-urls", s.Listen.Peer.strings(), "listen-client-urls", s.Listen.Client.strings(),
		"advertise-client-urls", s.Listen.AdvertiseClient.strings(), "initial-advertise-peer-urls", s.Cluster.AdvertisePeer.strings())
	for _, w := range s.Warnings {
		d.log.Warn(w)
	}
	metrics := &etcdapi.Metrics{Extensive: s.Metrics == "extensive"}
	e, err := openEndpoints(s, metrics, d.log)
	if err != nil {
		return err
	}
	n, err := d.open(ctx, metrics)
	if err != nil {
		e.close()
		return err
	}
	if s.Checks.Initial {
		if err := checkInitially(ctx, n); err != nil {
			e.close()
			return errors.Join(err, n.Close())
		}
	}
	return errors.Join(d.serve(ctx, n, e), n.Close())
}

// open opens the node.
func (d *daemon) open(ctx context.Context, m *etcdapi.Metrics) (*coterie.Node, error) {
	s := d.settings
	var err error
	if d.plan, err = s.plan(ctx, d.log); err != nil {
		return nil, err
	}
	if s.ForceNew {
		if err := s.forceNew(ctx, &d.plan, d.log); err != nil {
			return nil, err
		}
	}
	cfg, err := s.config(d.plan)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.DataDir, 0o700); err != nil { // as in etcd, for the owner alone
		return nil, err
	}
	cfg.Logger, cfg.Metrics = d.log, m
	n, err := coterie.Open(ctx, cfg)
	if errors.Is(err, coterie.ErrClusterMismatch) {
		err = d.explainMismatch(err)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("--listen-peer-urls: %w", err)
	}
	return n, err
}

// explainMismatch adds advice to the error of a directory if its first start had other flags and never became ready.
// The directory then has the identity of a member, but no plan.
func (d *daemon) explainMismatch(err error) error {
	if _, known, readErr := bootstrap.Read(d.settings.DataDir); known || readErr != nil {
		return err
	}
	return fmt.Errorf("%w: use the --name and the --initial-cluster-token of the first start, or remove --data-dir if this member was never ready", err)
}

// keepPlan keeps the plan in the data directory. It waits until the node is in its cluster: until then an operator may
// correct the URLs of the members.
func (d *daemon) keepPlan() {
	if err := d.plan.Save(d.settings.DataDir); err != nil {
		d.log.Warn("the next start needs the flags about members again", "err", err)
	}
}

// serve serves the endpoints until ctx ends or the node has stopped.
func (d *daemon) serve(ctx context.Context, n *coterie.Node, e *endpoints) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	served := make(chan error, 1)
	go func() { served <- e.run(serving, n) }()
	ready := make(chan error, 1)
	go func() { ready <- n.Ready(serving) }()
	for {
		select {
		case err := <-ready:
			ready = nil
			if err == nil {
				d.keepPlan()
				d.announce("READY=1")
				d.log.Info("ready to serve client requests", "member", n.ID().String(), "cluster", n.Status().ClusterID.String())
			}
		case err := <-served:
			return errors.Join(err, n.Status().Err)
		case <-ctx.Done():
			d.log.Info("received a signal, shutting down")
			d.announce("STOPPING=1")
			handOver(n, d.log)
			stop()
			return <-served
		}
	}
}

func (d *daemon) announce(state string) {
	if err := notify(d.notifySocket, state); err != nil {
		d.log.Warn("systemd cannot be notified", "err", err)
	}
}

// handOver makes another voter the leader if this node leads, while clients are still served.
func handOver(n *coterie.Node, log *slog.Logger) {
	if n.Status().Role != coterie.RoleLeader {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(2*n.Limits().ElectionTimeout, 2*time.Second))
	defer cancel()
	members, err := n.Members(ctx, coterie.WithSerializable())
	if err != nil {
		return // the node hands over when it closes, too
	}
	for _, m := range members {
		if m.ID == n.ID() || !m.Voter {
			continue
		}
		if err = n.TransferLeadership(ctx, m.ID); err == nil {
			log.Info("leadership transfer completed", "to", m.ID.String())
			return
		}
	}
	if err != nil {
		log.Warn("leadership transfer failed", "err", err)
	}
}
