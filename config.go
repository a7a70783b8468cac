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
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/metadata"
	"github.com/coterie-kv/coterie/internal/tlsnet"
	"github.com/coterie-kv/coterie/internal/usercode"
)

// Config describes a node. [Open] copies it. A field that is zero has the default that its comment
// names.
type Config struct {
	// Cluster is the name of the cluster. Nodes of different clusters reject each other. Defaults to
	// "coterie".
	Cluster string
	// Name is the name of the node, unique in the cluster: no two nodes may run with the same name. If
	// both have directories, they notice it. Defaults to Advertise, or "node" for a single node.
	Name string
	// Dir is the data directory. Open creates it if necessary. It is required unless InMemory is set, so
	// that nobody loses durability by forgetting it. Open makes it absolute and cleans it as
	// [path/filepath.Abs] does, so the process may change its working directory afterwards.
	Dir string
	// InMemory keeps all data in memory, so none survives the node. A node that comes back has forgotten
	// its promises. It counts again when a majority without it has let it in again, which takes about an
	// election timeout. If a majority stops at once, the cluster is lost: once all founders have been
	// started again, they found a new, empty one. If that can happen, give nodes directories.
	InMemory bool
	// Storage is the choice of files for the log, the vote and the identity. If it is nil, the log is in segments,
	// coterie's own format. Package boltlog has the other storage. A directory keeps the storage with which it
	// was made: Open rejects another one with [ErrStorageMismatch], and datadir.Convert changes it. Members of a
	// cluster may have different storages. Storage cannot be combined with InMemory.
	Storage Storage
	// Addr is the host:port to listen on. Port 0 picks a free port. If Addr is empty, the node is a single
	// one without a network.
	Addr string
	// Advertise is the address that other nodes dial. Its port is not 0. Defaults to the address of the
	// listener.
	Advertise string
	// Metadata describes the node to the other members and to their callers: a zone, or the address of an HTTP
	// server. When the node starts, the cluster puts it on record in place of the earlier one, and every node
	// shows it in Members. [Node.UpdateMetadata] can change it until the next start. If it is nil, the metadata on
	// record stays; an empty map removes it. Keys are not empty, a key with an empty value counts as absent, and
	// keys and values are UTF-8, of at most [MaxMetadataBytes] together.
	Metadata map[string]string
	// Network carries the node's connections. Defaults to TCP.
	Network Network
	// TLS is for mutual TLS between nodes, around Network: in both directions each node shows a
	// certificate and checks that of the other. It needs a certificate and RootCAs, which also check
	// callers unless it has ClientCAs. In any case ClientAuth is RequireAndVerifyClientCert, and sessions
	// are not resumed. The minimum version is TLS 1.3, or TLS 1.2 if MinVersion has that. If ServerName is
	// empty, it is the host that the node dials. [LoadTLS] makes a configuration from files. The node copies it and
	// never changes it. If one of its functions blocks or panics, the handshake fails. If TLS is nil,
	// connections are plain, and any program that reaches the port can pose as a member.
	TLS *tls.Config
	// VerifyMember decides in each handshake between nodes, on both sides, whether the other node is the
	// member that it claims to be, by the certificate that TLS has verified. An error rejects the connection.
	// Without VerifyMember, any holder of a certificate can pose as any member; [VerifyMemberName] prevents
	// that. It needs TLS. It may be called concurrently, and must return when ctx ends, within 5 s. If it
	// does not, or panics, the connection is rejected, and nothing else is delayed.
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
	// Logger receives the lines for operators; docs/metrics.md lists them all. Defaults to slog.Default() at
	// the time of Open. slog.New(slog.DiscardHandler) silences the node. The handler may block or panic: up
	// to 1024 lines wait for it, MetricLogDropped counts the lines that are lost, and Close gives it half a
	// second for the rest.
	Logger *slog.Logger
	// Metrics receives the measurements of the node. If it is nil, the node measures nothing, at no cost.
	Metrics Metrics
	// ElectionTimeout is how long a leader must be silent before a follower asks for an election, and how
	// long a leader leads without answers of a majority. Heartbeats are a tenth to a fifth of it apart. When
	// a leader crashes, writes wait a little longer than one ElectionTimeout. Each other voter that is down
	// or cannot win may add a third of it. It is at least 20 ms, and the same on each node. Defaults to 1 s.
	ElectionTimeout time.Duration
	// Retention bounds the history for reads and watches of past revisions.
	Retention Retention
	// SnapshotEntries is how many log entries may follow a snapshot before the node takes the next one. The node
	// takes it earlier if the entries are larger than 64 MiB and than the snapshot, or up to a quarter before that,
	// so that members take turns. It takes it later if the entries are smaller than a sixteenth of the snapshot.
	// Defaults to 10,000.
	SnapshotEntries uint64
	// DiskTimeout is how long a write to the disk may hang before a leader hands over. Defaults to 5 s.
	DiskTimeout time.Duration
	// MaxTxnOps bounds the compares, and the operations of each branch, of a transaction. Defaults
	// to 128.
	MaxTxnOps int
	// MaxRequestBytes bounds the encoded size of a write. Defaults to 1.5 MiB; at most 64 MiB.
	MaxRequestBytes int
	// MaxPendingCalls and MaxPendingBytes bound the writes that wait in this node, and their size. Further
	// writes fail with ErrOverloaded at once. Deletions, revocations and compactions may use another
	// sixteenth. They default to 65,536 and 256 MiB. MaxPendingBytes is at least MaxRequestBytes.
	MaxPendingCalls int
	MaxPendingBytes int64
	// QuotaBytes is how much the store may hold, including superseded revisions, as Status().Bytes counts
	// it. At the quota, this node rejects calls that may make the store grow with ErrNoSpace: puts,
	// transactions with a put in any branch, and grants. All other calls still work, and these do again when
	// the store holds less. Writes that are in flight are still applied, so the store can exceed the quota by
	// their size. The less of the quota is left, the less history a leader keeps: see Retention. Each node
	// should have the same quota. 0 means no bound.
	QuotaBytes int64
}

// Retention bounds history. The bound that is reached first counts. A field that is zero has its default,
// and a negative one is no bound. The leader compacts history that exceeds a bound. With Config.QuotaBytes,
// history has at most nine tenths of the space that the current keys and values leave of the quota,
// independent of Bytes. So deleting keys frees space by itself, and near the quota a slow watch may have to
// resume.
type Retention struct {
	// Age is how long a superseded revision stays. Defaults to 10 minutes. A new leader measures it from
	// its election on.
	Age time.Duration
	// Revisions is how many revisions stay. Defaults to 1,000,000.
	Revisions int64
	// Bytes is how much superseded data stays. Defaults to 256 MiB.
	Bytes int64
}

// A Founder is a node that founds a cluster: its name, and the address that the others dial.
type Founder struct{ Name, Addr string }

// A Network makes connections. Goroutines of the node call its methods, and those of its listeners and
// connections, concurrently. Connections must honour deadlines, and Close must end calls that wait.
// Otherwise a call to another node can hang, and [Node.Close] gives up waiting for it. A Dial that ignores
// its context is left behind; if 64 are, further ones fail at once. A panic fails the connection.
type Network interface {
	// Listen announces on addr, a host:port.
	Listen(addr string) (net.Listener, error)
	// Dial connects to addr. It returns when ctx ends.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// NewMemoryNetwork returns a network for nodes of one process. Any host:port is an address, and the
// operating system has no part in it.
func NewMemoryNetwork() Network { return memnet.New() }

type tcpNetwork struct{}

func (tcpNetwork) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (tcpNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// MaxMetadataBytes bounds the keys and values of [Config].Metadata together. Every node holds the metadata of all
// members in memory.
const MaxMetadataBytes = metadata.MaxBytes

const (
	minElectionTimeout = 20 * time.Millisecond
	maxRequestBytes    = 64 << 20
)

// withDefaults returns the configuration with all defaults except those that need the listener, or the
// errors in it.
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
	c.Founders, c.Join, c.Metadata = slices.Clone(c.Founders), slices.Clone(c.Join), maps.Clone(c.Metadata)
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
	if c.Storage != nil && c.InMemory {
		bad("Storage and InMemory exclude each other")
	}
	if _, err := c.format(); err != nil {
		errs = append(errs, err)
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
	if err := metadata.Check(c.Metadata); err != nil {
		errs = append(errs, fmt.Errorf("Config.Metadata: %w", err))
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
		if f.Name == "" {
			bad("Founders: the founder with address %q has no name", f.Addr)
		} else if names[f.Name] {
			bad("Founders: name %q is given twice", f.Name)
		}
		names[f.Name] = true
		if len(c.Founders) == 1 && f.Addr == "" {
			continue
		}
		if err := checkDialable(f.Addr); err != nil {
			bad("Founders: address %q of %s: %v", f.Addr, f.Name, err)
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
