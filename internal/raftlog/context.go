// SPDX-License-Identifier: Apache-2.0

package raftlog

import "context"

type contextKey struct{}

// With returns a context by which a node in memory is given stores that outlive it. Tests restart
// nodes so.
func With(ctx context.Context, l *Log) context.Context {
	return context.WithValue(ctx, contextKey{}, l)
}

// From returns the stores that ctx has, or new ones in memory.
func From(ctx context.Context) *Log {
	if l, ok := ctx.Value(contextKey{}).(*Log); ok {
		return l
	}
	return OpenMemory()
}
