// SPDX-License-Identifier: Apache-2.0

// Package daemon is coteried: a node and etcd's protocol on it, with the flags of etcd.
package daemon

import (
	"net/url"
	"time"
)

// Settings are the flags of a daemon. Parse sets them, and nothing changes them later.
type Settings struct {
	Name           string
	DataDir        string
	ForceNew       bool
	Snapshots      uint64 // log entries between two snapshots
	HeartbeatMs    uint
	ElectionMs     uint
	QuotaBytes     int64
	MaxTxnOps      uint
	MaxRequest     uint
	MaxStreams     uint
	KeepAlive      KeepAlive
	ProgressNotify time.Duration
	CompactionMode string
	Retention      string // as in the flag

	Cluster Cluster
	Listen  Listen
	Client  Security
	Peer    Security
	Log     LogSettings
	Users   Users
	Checks  Checks

	SelfSignedYears uint
	CipherSuites    stringList
	TLSMin, TLSMax  string
	Origins         stringList
	Hosts           stringList
	Metrics         string
	Pprof           bool

	ConfigFile string
	Version    bool

	// Warnings are for the log, which is opened after the flags are read.
	Warnings []string

	given    map[string]bool // the flags that the command line, the environment or the file has
	refusals []error         // of the flags that Parse has met so far
}

// KeepAlive are the rules about gRPC's pings.
type KeepAlive struct {
	MinTime, Interval, Timeout time.Duration
}

// Cluster are the flags about the members of the cluster.
type Cluster struct {
	Token         string
	Members       string // --initial-cluster
	State         string
	SRV           string
	SRVName       string
	AdvertisePeer urlList
}

// Listen are the URLs of the daemon's listeners, and those by which clients reach it.
type Listen struct {
	Peer, Client, ClientHTTP, Metrics urlList
	AdvertiseClient                   urlList
}

// Security are the flags about the certificates of a kind of connections: those of clients or those between members.
type Security struct {
	CertFile, KeyFile string
	TrustedCAFile     string
	ClientCertAuth    bool
	CRLFile           string
	AllowedCNs        stringList
	AllowedHostnames  stringList
	Auto              bool
}

// Checks are the flags about comparisons of the data of members.
type Checks struct {
	CorruptTime time.Duration // --corrupt-check-time; 0 for none
	HashTime    time.Duration // --compact-hash-check-time, with the gate CompactHashCheck
	Hashes      bool          // the gate CompactHashCheck
	Initial     bool          // the gate InitialCorruptCheck
}

// Users are the flags about tokens and passwords.
type Users struct {
	Token      string // simple, or the description of JSON web tokens
	TTLSeconds uint   // of simple tokens
	BcryptCost uint
}

// LogSettings are the flags about the log.
type LogSettings struct {
	Logger, Level, Format string
	Outputs               stringList
}

// The default URLs of etcd.
const (
	defaultPeerURL   = "http://localhost:2380"
	defaultClientURL = "http://localhost:2379"
	defaultName      = "default"
)

// Given reports whether a flag was set on the command line, in the environment or in the file.
func (s *Settings) Given(name string) bool { return s.given[name] }

// usesTLS reports whether a listener of a URL has TLS.
func usesTLS(u *url.URL) bool { return u.Scheme == "https" || u.Scheme == "unixs" }

// isUnix reports whether a URL is that of a socket in the file system.
func isUnix(u *url.URL) bool { return u.Scheme == "unix" || u.Scheme == "unixs" }
