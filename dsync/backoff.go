// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"math/rand/v2"
	"time"
)

// The first pause between two attempts, on average, and the longest.
const (
	minPause = time.Millisecond
	maxPause = 256 * time.Millisecond
)

// A backoff makes the pauses between attempts: longer each time, and by chance not as long as those
// of others that failed at the same moment.
type backoff time.Duration

func (b *backoff) wait() <-chan time.Time {
	*b = min(max(2**b, backoff(minPause)), backoff(maxPause))
	return time.After(time.Duration(*b/2) + rand.N(time.Duration(*b)))
}
