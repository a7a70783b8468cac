// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coterie-kv/coterie/internal/logqueue"
	"github.com/coterie-kv/coterie/internal/proposer"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/retention"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/usercode"
	"github.com/coterie-kv/coterie/internal/watchhub"
)

// A Node is one replica of the store, inside this process. Its methods may be called concurrently, from Open
// until after Close. They return when their context ends.
type Node struct {
	// Open sets the fields, and no goroutine changes them later. Each part guards its own state.

	cfg      Config
	id       MemberID
	life     *lifecycle
	lead     *leadership
	views    *views
	identity *identity
	peers    *peers
	joiner   *joiner
	roster   *roster

	log        *raftlog.Log
	lines      *logqueue.Queue         // nil if the logger discards everything
	meter      *usercode.Meter[Metric] // nil without Config.Metrics
	transport  *transport
	supervisor *supervisor

	hub *sharedWatches

	proposer  *proposer.Proposer
	reads     *reader
	leases    *leases
	keeper    *keeper
	retention *retention.Retention
}

// Open starts a node: alone, as a founder of a cluster, or from its directory. It returns when the local state
// is loaded, or ctx ends. [Node.Ready] waits for the cluster. Once open, the node runs until Close; the end of
// ctx does not stop it.
//
// Errors: ErrInvalidOption with every fault of cfg, ErrDirInUse, ErrCorrupt, ErrFormat, ErrClusterMismatch for a
// directory of another node, ErrStorageMismatch, ErrRestoreUnfinished; ErrNoSpace while the directory cannot be written for lack of
// room, file descriptors or memory; or another error of the operating system about the directory or the
// address. After an error nothing of the node is left in the process, and Open can be called again.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{
		life: newLifecycle(ctx), lead: newLeadership(),
	}
	n.views = newViews(n.life, n.contextError)
	n.hub = &sharedWatches{Hub: watchhub.NewHub(n.views.Summary().Revision)}
	opened := make(chan error, 1)
	go func() { opened <- n.open(cfg) }()
	select {
	case err = <-opened:
	case <-ctx.Done():
		// A call of the operating system cannot be interrupted. If it succeeds later, close the node.
		go func() {
			if <-opened == nil {
				n.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		n.life.cancel()
		return nil, err
	}
	return n, nil
}

// open builds the node from the outside in. When a step fails, it takes down the earlier ones.
func (n *Node) open(cfg Config) (err error) {
	var undo []func() error
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	listener, err := listen(&cfg)
	if err != nil {
		return err
	}
	if listener != nil {
		undo = append(undo, listener.Close)
	}
	if err = cfg.resolve(listener); err != nil {
		return err
	}
	n.cfg, n.id = cfg, cfg.memberID(cfg.Name)
	if cfg.Metrics != nil {
		n.meter = newMeter(n)
	}
	n.startLogger()
	undo = append(undo, func() error { n.stopLogger(n.life.Context()); return nil })
	fresh := false
	if n.log, fresh, err = openLog(n.life.Context(), &n.cfg); err != nil {
		return err
	}
	undo = append(undo, func() error { return n.log.Close(context.Background()) })
	n.identity = newIdentity(&n.cfg, n.log, func() bool { return n.raft().founding() })
	n.peers = newPeers(n)
	n.transport = newTransport(n)
	undo = append(undo, n.transport.client.Close)

	h := host{n.life, n}
	n.reads = newReader(n)
	n.proposer = proposer.New(h, proposer.Config{
		MaxCalls: cfg.MaxPendingCalls, MaxBytes: cfg.MaxPendingBytes, ElectionTimeout: cfg.ElectionTimeout,
	})
	n.leases = newLeases(n)
	n.retention = retention.New(h, retention.Bounds{
		Age: cfg.Retention.Age, Revisions: cfg.Retention.Revisions, Bytes: cfg.Retention.Bytes, Quota: cfg.QuotaBytes,
	}, 2*cfg.ElectionTimeout)
	n.keeper = newKeeper(n)

	n.joiner = newJoiner(n)
	fsm := newFSM(&n.views.changing, newConsumers(n), n.proposer.Owns, n.life.Context().Done(), func(index uint64) bool { return n.log.AwaitIndex(n.life.Context(), index) == nil })
	n.log.Vet(fsm.receive)
	n.supervisor = newSupervisor(n, fsm)
	undo = append(undo, n.supervisor.end)
	n.roster = newRoster(n)
	if err = onDisk(n.log, func() error { return n.resume(fresh) }); err != nil {
		return err
	}
	if listener != nil {
		n.transport.serve(listener, newHandler(n))
		undo = append(undo, n.transport.server.Close)
	}
	if err = n.life.open(); err != nil {
		return err
	}
	n.life.Go(n.supervisor.followLeadership)
	n.life.Go(n.supervisor.followDisk)
	n.life.Go(n.proposer.Run)
	n.life.Go(n.leases.expirer.Run)
	n.life.Go(n.keeper.run)
	n.life.Go(n.retention.Run)
	n.life.Go(n.supervisor.takeSnapshots)
	n.life.Go(func() { n.joiner.checkRun(); n.joiner.gather() })
	n.life.Go(n.supervisor.campaign)
	n.life.Go(n.joiner.run)
	n.life.Go(n.roster.run)
	n.joiner.membersChanged(n.views.Summary())
	if n.meter != nil {
		n.log.Measure(func(bytes int, took time.Duration) { measureLogWrite(n.meter, bytes, took) })
		go n.meter.Run()
	}
	n.cfg.warnOfPlainText(listener)
	n.cfg.Logger.Info("node opened", "member", n.id.String(), "addr", n.cfg.Advertise, "rev", n.views.Summary().Revision)
	return nil
}

// resume continues where the node was when it last ran, or founds its cluster. The first run of a fresh
// directory has begun already.
func (n *Node) resume(fresh bool) error {
	if err := found(n.log, &n.cfg); err != nil {
		return err
	}
	if err := n.supervisor.fsm.load(n.log); err != nil {
		return err
	}
	if err := n.life.Fault(); err != nil { // what is on disk cannot be understood
		return err
	}
	if !fresh {
		if err := n.identity.beginRun(n.recordedRun()); err != nil {
			return err
		}
	}
	return n.supervisor.start()
}

// recordedRun returns the run that the cluster has on record for this directory, as far as this node has
// applied the log.
func (n *Node) recordedRun() (recorded run.Number) {
	if m, ok := n.views.Summary().Members.Get(uint64(n.id)); ok && m.Incarnation == n.identity.Load().Incarnation {
		recorded = m.Run
	}
	return recorded
}

// ID returns the node's member ID: the same at every start.
func (n *Node) ID() MemberID { return n.id }

// Ready waits until the node can serve: a leader is known, the cluster has the node on record, so that it counts
// when others fail, and the node has applied everything that was committed when Ready was called.
//
// Errors: ctx's cause, joined with ErrNoLeader and, if other nodes rejected this one, with the reason;
// ErrClosed.
func (n *Node) Ready(ctx context.Context) error {
	if err := n.alive(ctx); err != nil {
		return err
	}
	for {
		confirmed := n.identity.Changed()
		if n.identity.Load().Since > 0 {
			_, err := n.reads.linearizable(ctx)
			return err
		}
		select {
		case <-confirmed:
		case <-ctx.Done():
			return n.contextError(ctx)
		case <-n.life.Closing():
			return n.life.Err()
		}
	}
}

// Close takes at most handOverTime to hand over, and closeTime for the rest. A goroutine that still runs then
// hangs in the operating system or in Config.Network. Of closeTime, Logger and Metrics get flushTime each.
const (
	handOverTime = 2 * time.Second
	closeTime    = 3 * time.Second
	flushTime    = 500 * time.Millisecond
)

// Close stops the node and waits until nothing of it is left, for at most 5 seconds. A leader first hands over,
// for at most one election timeout and at most two seconds. Calls that wait return ErrClosed. The node remains a
// member of its cluster, and can be opened again from its directory. A second Close waits for the first, and
// both return the same error.
func (n *Node) Close() error {
	n.stop(nil, true)
	return n.life.wait()
}

// Done returns a channel that is closed when the node has stopped: by Close, or by a fault, which Err returns.
func (n *Node) Done() <-chan struct{} { return n.life.Done() }

// Logger returns Config.Logger. Its lines name this node. Recipes use it for messages to operators.
func (n *Node) Logger() *slog.Logger { return n.cfg.Logger }

// Err returns nil while the node runs, and then ErrClosed, joined with the fault if the node stopped by itself.
func (n *Node) Err() error {
	select {
	case <-n.life.Done():
		return n.life.Err()
	default:
		return nil
	}
}

// stop begins to stop the node, once. fault is the reason, nil for Close. While Open runs, Open itself takes
// down the parts that it has built.
func (n *Node) stop(fault error, handOver bool) {
	opened := n.life.stop(fault)
	n.hub.WakeAll() // the watches end
	if opened {
		go n.shutdown(handOver)
	}
}

// shutdown takes the node down. It leaves a part that hangs behind, and Close returns an error.
func (n *Node) shutdown(handOver bool) {
	if handOver && n.lead.Now().Self && len(n.raft().voters()) > 1 {
		n.supervisor.handOver()
	}
	n.life.cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- n.takeDown() }()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	var err error
	select {
	case err = <-stopped:
	case <-ctx.Done():
		err = errors.New("coterie: the node hangs, in the operating system or in Config.Network")
	}
	n.cfg.Logger.Info("node closed")
	n.stopLogger(ctx)
	closeMeter(ctx, n.meter) // last, since what the log drops is counted
	n.life.finish(err)
}

// takeDown closes the network first, then raft, which must not use a closed store, then the store.
func (n *Node) takeDown() error {
	errs := []error{n.raft().net.Close(), n.transport.close()}
	n.log.End()
	errs = append(errs, n.supervisor.end()) // after End, because a restart of raft may wait for the log
	n.life.work.Wait()
	return errors.Join(append(errs, n.log.Close(context.Background()))...)
}

// raft returns this node's part in Raft. Open must have started it.
func (n *Node) raft() *consensus { return n.supervisor.raft() }

// alive returns why a call cannot go on, if so.
func (n *Node) alive(ctx context.Context) error {
	if err := n.life.Err(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return n.contextError(ctx)
	}
	return nil
}

// ContextError is for recipes that wait on their own. It returns the error of a call if its ctx has ended
// while the call waited for the cluster. The error matches ctx's cause, and ErrNoLeader if no leader is known.
func (n *Node) ContextError(ctx context.Context) error { return n.contextError(ctx) }

// contextError returns the error of a call if its ctx has ended while it waited for the cluster.
func (n *Node) contextError(ctx context.Context) error { return n.unanswered(context.Cause(ctx)) }

// unanswered adds the likely reason to err, with which a wait for an answer of the cluster has ended.
func (n *Node) unanswered(err error) error {
	if lead := n.lead.Now().Leader; lead != 0 {
		return n.peers.withRefusal(err, lead)
	}
	return fmt.Errorf("%w (%w)", err, n.peers.noLeader())
}

func (n *Node) header(rev int64) Header {
	return Header{ClusterID: ClusterID(n.identity.Load().Cluster), MemberID: n.id, Revision: rev, Term: n.lead.Now().Term}
}
