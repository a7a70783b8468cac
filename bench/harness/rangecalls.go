// SPDX-License-Identifier: Apache-2.0

package harness

import "context"

// newRanges returns the job that reads ranges of old keys, Batch keys each.
func newRanges(_ context.Context, b base) (Job, error) {
	return rangesBy(b, Ranger.Range)
}

// newStreams returns the job that does the same in parts.
func newStreams(_ context.Context, b base) (Job, error) {
	return rangesBy(b, Ranger.Stream)
}

func rangesBy(b base, read func(r Ranger, ctx context.Context, key, end string, n, bytes int, local bool) error) (Job, error) {
	if len(b.keys) < b.Batch+1 {
		return nil, errNoKeys
	}
	return newCalls(b, func(ctx context.Context, s Store, n int64) error {
		r, err := as[Ranger](s)
		if err != nil {
			return err
		}
		first := int(b.old(n)) % (len(b.keys) - b.Batch)
		return read(r, ctx, b.keys[first], b.keys[first+b.Batch], b.Batch, b.Batch*b.values.size, b.Local)
	}, nil), nil
}

// newCounts returns the job that counts the old keys.
func newCounts(_ context.Context, b base) (Job, error) {
	return newCalls(b, func(ctx context.Context, s Store, n int64) error {
		r, err := as[Ranger](s)
		if err != nil {
			return err
		}
		return r.Count(ctx, string(oldPrefix), after(oldPrefix), len(b.keys), b.Local)
	}, nil), nil
}

// newDeletes returns the job that puts Batch keys in a transaction and deletes them as a range.
func newDeletes(_ context.Context, b base) (Job, error) {
	batches := newBatches(b)
	return newCalls(b, func(ctx context.Context, s Store, n int64) error {
		r, err := as[Ranger](s)
		if err != nil {
			return err
		}
		keys, err := batches.put(ctx, s, n)
		if err != nil {
			return err
		}
		return r.DeleteRange(ctx, keys[0], keys[len(keys)-1]+"\x00", len(keys))
	}, nil), nil
}
