// SPDX-License-Identifier: Apache-2.0

package etcdapi

import "time"

// An Option is an option of [Register], [Serve] and [NewClient].
type Option func(*options)

type options struct {
	clientURLs       []string
	progressInterval time.Duration
}

// WithClientURLs sets the URLs by which clients reach this endpoint, such as "http://10.0.0.1:2379". MemberList
// returns them for this node, and clients that look for the members of the cluster dial them.
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
