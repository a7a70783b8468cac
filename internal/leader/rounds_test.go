// SPDX-License-Identifier: Apache-2.0

package leader

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
)

// leading is the host of a node that leads and never closes.
type leading struct{ ctx context.Context }

func (h leading) Leader() (leader, term uint64, self bool) { return 1, 1, true }
func (h leading) LeaderChanged() <-chan struct{}           { return nil }
func (h leading) ElectionTimeout() time.Duration           { return time.Second }
func (h leading) Final(error) bool                         { return false }
func (h leading) Alive(ctx context.Context) error          { return context.Cause(ctx) }
func (h leading) Context() context.Context                 { return h.ctx }
func (h leading) Go(fn func())                             { go fn() }
func (h leading) Closing() <-chan struct{}                 { return nil }
func (h leading) Err() error                               { return nil }
func (h leading) ContextError(ctx context.Context) error   { return context.Cause(ctx) }

// A renewal is not requested after its caller has given up, even if a leader answers later. Otherwise the lease would
// outlive its holder.
func TestQuestionWithoutCallersIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := true
		var asked []int
		r := NewRounds(leading{t.Context()}, func(_ context.Context, questions []int) ([]int, error) {
			if away {
				return nil, fault.ErrNotLeader
			}
			asked = append(asked, questions...)
			return questions, nil
		}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for i := range 4 { // in the round that is asked, and in the one after it
			go func() {
				_, err := r.Ask(ctx, i)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}()
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		away = false
		answer, err := r.Ask(t.Context(), 7)
		require.NoError(t, err)
		require.Equal(t, 7, answer)
		require.Equal(t, []int{7}, asked)
		require.Empty(t, r.waiting)
	})
}
