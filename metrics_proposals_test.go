// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
)

func TestWritesAreCountedByOutcome(t *testing.T) {
	for want, errs := range map[Metric][]error{
		MetricProposalsApplied:   {nil},
		MetricProposalsRefused:   {ErrNoSpace, ErrOverloaded, limitError(&fault.LimitError{Kind: ErrOverloaded}), limitError(&fault.LimitError{Kind: ErrNoSpace})},
		MetricProposalsUncertain: {ErrMaybeApplied, fmt.Errorf("%w: %w", ErrMaybeApplied, ErrClosed), errors.Join(ErrMaybeApplied, context.Canceled)},
		MetricProposalsGivenUp:   {ErrClosed, context.DeadlineExceeded, ErrNoLeader},
	} {
		for _, err := range errs {
			var r ExpvarMetrics
			n := &Node{cfg: Config{Metrics: &r}}
			n.meter = newMeter(n)
			measureProposal(n.meter, time.Now(), err)
			n.meter.Deliver()
			for _, m := range []Metric{MetricProposalsApplied, MetricProposalsRefused, MetricProposalsUncertain, MetricProposalsGivenUp} {
				require.Equal(t, m == want, r.Value(m) == 1, "%v: %s", err, m)
			}
			require.Equal(t, err == nil, r.Value(MetricProposalSeconds+"_count") == 1, "%v", err)
		}
	}
}
