// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A journal is what nodes log, as text.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(b)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.b.String(), text)
}

// A node that is not let in asks again and again, and says so once.
func TestARefusalIsLoggedOnce(t *testing.T) {
	log := &journal{}
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		i := c.Index(c.Follower())
		for range 2 {
			c.Wipe(i)
			c.Restart(i)
			require.ErrorIs(t, notReady(t, c.Node(i), 5*time.Minute), coterie.ErrDataLost)
		}
		require.Equal(t, 2, log.count(`msg="not let in"`))
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) {
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	}))
}
