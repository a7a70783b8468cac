// SPDX-License-Identifier: Apache-2.0

// Package sharedconfig has typed configuration that all instances of a service share: written anywhere,
// checked before it is stored and again wherever it is received, and read from memory in a few
// nanoseconds.
//
//	limits, err := sharedconfig.Open(ctx, node, sharedconfig.Config[Limits]{
//		Keys:     []string{"config/limits", "config/limits/orders"}, // of all, and of this service
//		Default:  Limits{Rate: 100},
//		Validate: Limits.Validate,
//		File:     "/var/lib/orders/limits.json",
//	})
//	…
//	rate := limits.Load().Rate
//	_, err = limits.Update(ctx, func(l Limits) (Limits, error) { l.Rate *= 2; return l, nil })
//	_, err = limits.Rollback(ctx, 0) // to what was before
//
// A value is a JSON document under a key, or several, merged field by field (RFC 7396) over a
// default: the later ones win, and null takes a field away. Fields are named as encoding/json writes
// them: one that comes in two spellings, in lower and upper case, makes the value bad. With
// functions of its own a value is in any other form, under one key.
//
// A bad value replaces no good one: Update refuses it, and where one comes in by another way, by a
// Put or from a program with other rules, every [Value] stays with what it had and says why.
// Without a quorum the value stays as it is, and one that is opened begins with the last good one
// from its file, or with what its node has.
//
// Versions are kept as keys, with "@" and the revision that made them behind the value's own key,
// so that compaction does not lose them. Rules that concern several values at once need a
// transaction of your own. Do not use it for what changes many times a second: each change is a
// write to the log, a decoding on every instance, and with a File a sync of each one's disk.
package sharedconfig
