// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
)

type guardKey struct{}

func withGuard(ctx context.Context, guard Comparison) context.Context {
	return context.WithValue(ctx, guardKey{}, guard)
}

// GuardFromContext returns the guard of the lock or the leadership under which [Mutex.Do] or [RunAsLeader]
// runs the body that ctx was given to: a condition for transactions that holds as long as it is this
// holder's. For any other context it returns one that never holds.
func GuardFromContext(ctx context.Context) Comparison {
	if guard, ok := ctx.Value(guardKey{}).(Comparison); ok {
		return guard
	}
	return (&place{key: "none"}).guard()
}
