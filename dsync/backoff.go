// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"math/rand/v2"
	"time"
)

// The average first pause between two attempts, and the longest.
const (
	minPause = time.Millisecond
	maxPause = 256 * time.Millisecond
)

// A backoff makes the pauses between attempts. Each average is twice the one before. A random part keeps
// callers that failed at the same moment from trying again at the same moment.
type backoff time.Duration

func (b *backoff) wait() <-chan time.Time {
	*b = min(max(2**b, backoff(minPause)), backoff(maxPause))
	return time.After(time.Duration(*b/2) + rand.N(time.Duration(*b)))
}
