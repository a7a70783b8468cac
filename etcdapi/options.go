// SPDX-License-Identifier: Apache-2.0

package etcdapi

import "time"

// An Option is an option of [Register], [Serve] and [NewClient].
type Option func(*options)

type options struct {
	clientURLs       []string
	progressInterval time.Duration
}

// The keys of a member's metadata that MemberList returns: lists of URLs, separated by commas. [Serve] and the calls that
// change members write them. A program that sets coterie.Config.Metadata adds them there, because that replaces the
// metadata on record at each start.
const (
	MetadataClientURLs = "etcd.clientURLs"
	MetadataPeerURLs   = "etcd.peerURLs"
)

// WithClientURLs sets the URLs by which clients reach this endpoint, such as "http://10.0.0.1:2379". MemberList
// returns them, and clients that look for the members of the cluster dial them. [Serve] puts them on record with the
// cluster, so that every endpoint lists them, as soon as a leader is known. For an endpoint of [Register], set
// [MetadataClientURLs] in coterie.Config.Metadata, or only this endpoint lists them.
func WithClientURLs(urls ...string) Option {
	return func(o *options) { o.clientURLs = append([]string(nil), urls...) }
}

// minProgressInterval is etcd's.
const minProgressInterval = 100 * time.Millisecond

// WithProgressInterval sets how long a watch with progress notifications may be silent before it gets one. It
// corresponds to etcd's --watch-progress-notify-interval: the default is 10 minutes, the minimum 100 ms.
func WithProgressInterval(d time.Duration) Option {
	return func(o *options) { o.progressInterval = max(d, minProgressInterval) }
}
