// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/tlsnet"
	"github.com/coterie-kv/coterie/internal/usercode"
)

// Config describes a node. It is copied by [Open]; a zero field means the default that its comment
// names.
type Config struct {
	// Cluster names the cluster: nodes of different clusters refuse each other. Defaults to
	// "coterie".
	Cluster string
	// Name is the node's name, unique in the cluster: no two nodes may run under one, which is noticed
	// where they have directories. Defaults to Advertise, or "node" for a single node.
	Name string
	// Dir is the data directory, created if need be. Required unless InMemory: forgetting it must
	// not cost durability. Open makes it absolute and cleans it as [path/filepath.Abs] does, so that
	// the process may change its working directory afterwards.
	Dir string
	// InMemory keeps everything in memory: nothing survives the node. One that comes back has forgotten
	// what it promised, and counts again when a majority without it has taken it back, which takes
	// about an election timeout. If a majority stops at once, the cluster is lost: the nodes that come
	// back found a new, empty one when all its founders have been started again. Where that may happen,
	// give nodes directories.
	InMemory bool
	// Addr is the host:port to listen on; port 0 picks a free one. Empty: a single node without a
	// network.
	Addr string
	// Advertise is the address that other nodes dial; its port is not 0. Defaults to the listener's
	// address.
	Advertise string
	// Network carries the node's connections. Defaults to TCP.
	Network Network
	// TLS is for mutual TLS between nodes, in both directions, around Network: each shows a
	// certificate and checks the other's. It needs a certificate, and RootCAs, by which callers are
	// checked, too, unless it has ClientCAs. Whatever it says, ClientAuth is
	// RequireAndVerifyClientCert and nothing is resumed; the least version is TLS 1.3, or TLS 1.2 if
	// it says so; an empty ServerName is the host that is dialled. [LoadTLS] makes one from files. It
	// is copied, never changed. A function of it that blocks or panics fails its handshake. nil:
	// connections are plain, and any program that reaches the port can pose as a member.
	TLS *tls.Config
	// VerifyMember is asked in each handshake between nodes, on both sides, whether the other node is the
	// member that it says it is, by the certificate that TLS has verified. An error refuses the connection.
	// Without it, each holder of a certificate can pose as any member; [VerifyMemberName] closes that. It
	// needs TLS. It may be called concurrently, and must return when ctx ends, within 5 s: one that does not,
	// or panics, refuses the connection, and holds up nothing else.
	VerifyMember func(ctx context.Context, c Claim) error
	// Founders are the nodes that found the cluster, this one among them: the same list on each. They
	// found it on their first start, when all of them are up and none has been in a cluster before. On
	// later starts the list only says where these nodes are now. A node that comes later needs Join
	// instead. If both are empty, this node founds a cluster of its own.
	Founders []Founder
	// Join are addresses of members of a running cluster, for a node that is not a founder. On its
	// first start the node asks them to be let in until it is a member, and gets a vote when it has
	// caught up. On later starts it looks for the other members there. It excludes Founders.
	Join []string
	// NonVoter is for a node that joins and never gets a vote by itself. It serves all calls, and does
	// not count for the majority.
	NonVoter bool
	// Logger receives what an operator should know: docs/metrics.md has every line. Defaults to
	// slog.Default(), as it is at Open; slog.New(slog.DiscardHandler) silences the node. Its handler may
	// block or panic: lines wait for it in a queue of 1024, MetricLogDropped counts those that are lost,
	// and Close gives it half a second for what is left.
	Logger *slog.Logger
	// Metrics receives what the node measures of itself. nil: nothing is measured, and costs nothing.
	Metrics Metrics
	// ElectionTimeout is how long a leader must be silent before a follower asks for an election, and how
	// long a leader leads without an answer of a majority. Heartbeats are a tenth to a fifth of it apart.
	// When a leader crashes, writes wait a little longer than one ElectionTimeout; each other voter that
	// is down or cannot win may add a third of it. At least 20 ms, the same on each node. Defaults to 1 s.
	ElectionTimeout time.Duration
	// Retention bounds the history that is kept for reads and watches of past revisions.
	Retention Retention
	// SnapshotEntries is how many log entries may follow a snapshot before the next is taken; one
	// is taken sooner when they outgrow 64 MiB and the snapshot itself. Defaults to 10,000.
	SnapshotEntries uint64
	// DiskTimeout is how long a write to the disk may hang before a leader hands over. Defaults to 5 s.
	DiskTimeout time.Duration
	// MaxTxnOps bounds the compares, and the operations of each branch, of a transaction. Defaults
	// to 128.
	MaxTxnOps int
	// MaxRequestBytes bounds the encoded size of a write. Defaults to 1.5 MiB; at most 64 MiB.
	MaxRequestBytes int
	// MaxPendingCalls and MaxPendingBytes bound the writes that wait in this node, and what they take:
	// more are refused with ErrOverloaded, at once. Deletions, revocations and compactions have a
	// sixteenth on top. They default to 65,536 and 256 MiB; MaxPendingBytes is at least
	// MaxRequestBytes.
	MaxPendingCalls int
	MaxPendingBytes int64
	// QuotaBytes is how much the store may hold, superseded revisions included, as Status().Bytes
	// counts it, before this node refuses what may make it grow with ErrNoSpace: puts, transactions
	// with one in any branch, grants. Everything else goes on, and so do they once there is less.
	// What is under way is still applied, so the store can be larger by that much. As less of the quota
	// is left, a leader keeps less history: see Retention. Each node should have the same. 0: no bound.
	QuotaBytes int64
}

// Retention bounds history. The bound that is reached first counts; a zero field means its default,
// a negative one no bound. The leader compacts what exceeds it. With Config.QuotaBytes, history has at
// most nine tenths of what the present state of the keys leaves of the quota, whatever Bytes says: so
// deleting keys makes room by itself, and near the quota a slow watch may have to resume.
type Retention struct {
	// Age is how long a superseded revision stays. Defaults to 10 minutes. A new leader counts it
	// anew.
	Age time.Duration
	// Revisions is how many revisions stay. Defaults to 1,000,000.
	Revisions int64
	// Bytes is how much superseded data stays. Defaults to 256 MiB.
	Bytes int64
}

// A Founder is a node that founds a cluster: its name, and the address that the others dial.
type Founder struct{ Name, Addr string }

// A Network makes connections. Its methods, and those of what it returns, may be called concurrently, and
// are called on goroutines of the node. Connections must honour deadlines, and Close must end calls that
// wait: a call to another node that waits in one that does not hangs, and [Node.Close] gives up waiting for
// it. A Dial that ignores its context is left behind; once 64 are, further ones fail at once. A panic fails
// the connection.
type Network interface {
	// Listen announces on addr, a host:port.
	Listen(addr string) (net.Listener, error)
	// Dial connects to addr. It returns when ctx ends.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// NewMemoryNetwork returns a network for nodes of one process: addresses are any host:port, and
// nothing touches the operating system.
func NewMemoryNetwork() Network { return memnet.New() }

type tcpNetwork struct{}

func (tcpNetwork) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (tcpNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

const (
	minElectionTimeout = 20 * time.Millisecond
	maxRequestBytes    = 64 << 20
)

// withDefaults returns the configuration with every default filled in but those that need the
// listener, or all that is wrong with it.
func (c Config) withDefaults() (Config, error) {
	c.Cluster = cmp.Or(c.Cluster, "coterie")
	c.ElectionTimeout = cmp.Or(c.ElectionTimeout, time.Second)
	c.SnapshotEntries = cmp.Or(c.SnapshotEntries, 10_000)
	c.DiskTimeout = cmp.Or(c.DiskTimeout, 5*time.Second)
	c.MaxTxnOps = cmp.Or(c.MaxTxnOps, 128)
	c.MaxRequestBytes = cmp.Or(c.MaxRequestBytes, 1536<<10)
	c.MaxPendingCalls = cmp.Or(c.MaxPendingCalls, 1<<16)
	c.MaxPendingBytes = cmp.Or(c.MaxPendingBytes, 256<<20)
	c.Retention.Age = cmp.Or(c.Retention.Age, 10*time.Minute)
	c.Retention.Revisions = cmp.Or(c.Retention.Revisions, 1_000_000)
	c.Retention.Bytes = cmp.Or(c.Retention.Bytes, 256<<20)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Network == nil {
		c.Network = tcpNetwork{}
	} else {
		c.Network = usercode.Network(c.Network)
	}
	if c.Addr == "" {
		c.Name = cmp.Or(c.Name, c.Advertise, "node")
	}
	c.Founders, c.Join = slices.Clone(c.Founders), slices.Clone(c.Join)
	err := c.validate()
	if err != nil {
		return c, err
	}
	if c.Dir != "" {
		if c.Dir, err = filepath.Abs(c.Dir); err != nil {
			return c, fmt.Errorf("%w: Config.Dir is relative, and the working directory is unknown: %w", ErrInvalidOption, err)
		}
	}
	if c.TLS != nil {
		c.Network = tlsnet.New(c.Network, c.TLS)
	}
	return c, nil
}

func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: Config.%s", ErrInvalidOption, fmt.Sprintf(format, args...)))
	}
	if c.Dir == "" && !c.InMemory {
		bad("Dir is empty: name a directory, or set InMemory")
	}
	if c.Dir != "" && c.InMemory {
		bad("Dir and InMemory exclude each other")
	}
	c.checkAddrs(bad)
	c.checkFounders(bad)
	if c.TLS != nil {
		tlsnet.Check(c.TLS, bad)
	} else if c.VerifyMember != nil {
		bad("VerifyMember needs TLS: there are no certificates without")
	}
	if c.ElectionTimeout < minElectionTimeout {
		bad("ElectionTimeout %v is under %v", c.ElectionTimeout, minElectionTimeout)
	}
	if c.DiskTimeout < minElectionTimeout {
		bad("DiskTimeout %v is under %v", c.DiskTimeout, minElectionTimeout)
	}
	if c.MaxTxnOps < 0 {
		bad("MaxTxnOps %d is negative", c.MaxTxnOps)
	}
	if c.MaxRequestBytes < 0 || c.MaxRequestBytes > maxRequestBytes {
		bad("MaxRequestBytes %d is not between 0 and %d", c.MaxRequestBytes, maxRequestBytes)
	}
	if c.MaxPendingCalls < 0 {
		bad("MaxPendingCalls %d is negative", c.MaxPendingCalls)
	}
	if c.MaxPendingBytes < int64(c.MaxRequestBytes) {
		bad("MaxPendingBytes %d is less than MaxRequestBytes %d", c.MaxPendingBytes, c.MaxRequestBytes)
	}
	if c.QuotaBytes < 0 {
		bad("QuotaBytes %d is negative", c.QuotaBytes)
	}
	return errors.Join(errs...)
}

// checkAddrs reports addresses that this node cannot listen on, or that other nodes cannot dial.
func (c *Config) checkAddrs(bad func(format string, args ...any)) {
	if c.Addr != "" {
		if _, _, err := splitAddr(c.Addr); err != nil {
			bad("Addr: %v", err)
		}
	}
	if c.Advertise != "" {
		if err := checkDialable(c.Advertise); err != nil {
			bad("Advertise: %v", err)
		}
	}
	if len(c.Founders) > 1 && c.Addr == "" {
		bad("Addr is empty, but Founders names other nodes")
	}
	if len(c.Join) > 0 && len(c.Founders) > 0 {
		bad("Join and Founders exclude each other: a node joins a cluster, or founds one")
	}
	if len(c.Join) > 0 && c.Addr == "" {
		bad("Addr is empty, but Join names other nodes")
	}
	if c.NonVoter && len(c.Join) == 0 {
		bad("NonVoter is for a node that joins: Join is empty")
	}
	for _, addr := range c.Join {
		if err := checkDialable(addr); err != nil {
			bad("Join: %v", err)
		}
	}
}

// checkFounders reports founders without a name or an address of their own.
func (c *Config) checkFounders(bad func(format string, args ...any)) {
	names, addrs := map[string]bool{}, map[string]bool{}
	for _, f := range c.Founders {
		if f.Name == "" || names[f.Name] {
			bad("Founders: name %q is empty or given twice", f.Name)
		}
		names[f.Name] = true
		if len(c.Founders) == 1 && f.Addr == "" {
			continue
		}
		if err := checkDialable(f.Addr); err != nil {
			bad("Founders: %s: %v", f.Name, err)
		} else if addrs[f.Addr] {
			bad("Founders: address %s is given twice", f.Addr)
		}
		addrs[f.Addr] = true
	}
}

// resolve fills in the fields that depend on the listener, and checks that the founders include this node.
func (c *Config) resolve(l net.Listener) error {
	if l != nil && c.Advertise == "" {
		c.Advertise = l.Addr().String()
		if err := checkDialable(c.Advertise); err != nil {
			return fmt.Errorf("%w: Config.Advertise is needed, since other nodes cannot dial Addr: %v", ErrInvalidOption, err)
		}
	}
	c.Name = cmp.Or(c.Name, c.Advertise)
	if len(c.Join) > 0 {
		return nil
	}
	if len(c.Founders) == 0 {
		c.Founders = []Founder{{Name: c.Name, Addr: c.Advertise}}
	}
	if slices.ContainsFunc(c.Founders, func(f Founder) bool { return f.Name == c.Name }) {
		return nil
	}
	return fmt.Errorf("%w: Config.Name %q is not among Founders", ErrInvalidOption, c.Name)
}

func splitAddr(addr string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("address %s: port is not a number from 0 to 65535", addr)
	}
	return host, uint16(number), nil
}

// checkDialable returns an error if other nodes cannot dial an address.
func checkDialable(addr string) error {
	host, port, err := splitAddr(addr)
	if err != nil {
		return err
	}
	if port == 0 {
		return fmt.Errorf("address %s has port 0, which cannot be dialled: name the port that its node listens on", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("address %s names no host that can be dialled", addr)
	}
	return nil
}

// memberID returns the member ID of the node with a name. It is the same on every start and every node.
func (c *Config) memberID(name string) MemberID {
	return MemberID(hashOf("member", c.Cluster, name))
}

// clusterID returns the ID of the cluster that the founders found. Founders with different lists reject each
// other by it.
func (c *Config) clusterID() uint64 {
	parts := []string{"cluster", c.Cluster}
	founders := slices.SortedFunc(slices.Values(c.Founders), func(a, b Founder) int { return cmp.Compare(a.Name, b.Name) })
	for _, f := range founders {
		parts = append(parts, f.Name, f.Addr)
	}
	return hashOf(parts...)
}

// hashOf returns a hash of words. It is never 0.
func hashOf(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return max(h.Sum64(), 1)
}
