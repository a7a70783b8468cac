// SPDX-License-Identifier: Apache-2.0

package rivals

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie/bench/harness"
)

// Smoke opens a system, makes some calls of each workload, and closes it. The workloads check their results.
func Smoke(ctx context.Context, open harness.Opener, s harness.Setup) (err error) {
	opening, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	sys, err := open(opening, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sys.Close()) }()
	if len(sys.Stores) != s.Members || sys.Durability == "" {
		return fmt.Errorf("rivals: %d stores, with the durability %q", len(sys.Stores), sys.Durability)
	}
	for _, l := range []harness.Load{
		{Work: "put", Callers: 10, Ops: 300},
		{Work: "get", Callers: 10, Ops: 300, Keys: 20},
		{Work: "get", Callers: 10, Ops: 300, Keys: 20, Local: true, Place: harness.OnAll},
	} {
		if err := smoke(ctx, sys, l); err != nil && (l.Local || !errors.Is(err, errors.ErrUnsupported)) {
			return fmt.Errorf("rivals: %s: %w", l.Work, err)
		}
	}
	return nil
}

func smoke(ctx context.Context, sys *harness.System, l harness.Load) (err error) {
	job, err := harness.Prepare(ctx, sys, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close()) }()
	sample, err := job.Run(ctx, 0, harness.OwnUsage)
	if err == nil && sample.Ops != int64(l.Ops) {
		err = fmt.Errorf("%d operations instead of %d", sample.Ops, l.Ops)
	}
	return err
}
