// SPDX-License-Identifier: Apache-2.0

// Package sharedconfig keeps typed configuration that all instances of a service share. Any instance can write
// it. It is checked before it is stored, and again wherever it is received. Reading it takes a few nanoseconds.
//
//	limits, err := sharedconfig.Open(ctx, node, sharedconfig.Config[Limits]{
//		Keys:     []string{"config/limits", "config/limits/orders"}, // of all services, and of this one
//		Default:  Limits{Rate: 100},
//		Validate: Limits.Validate,
//		File:     "/var/lib/orders/limits.json",
//	})
//	…
//	defer limits.Close()
//	rate := limits.Load().Rate
//	_, err = limits.Update(ctx, func(l Limits) (Limits, error) { l.Rate *= 2; return l, nil })
//	_, err = limits.Rollback(ctx, 0) // to the version before
//
// # Layers
//
// A value is a JSON document under a key. It may also be several documents under several keys, which are merged
// over a default, field by field (RFC 7396): later keys win, and null removes a field. Fields have the
// names that encoding/json writes. A field that occurs in two spellings that differ only in case makes the
// value bad. With the functions [Config.Decode] and [Config.Encode] a value may have any other form, under one key.
//
// # Bad values
//
// A bad value never replaces a good one. [Value.Update] rejects it. If a bad value is stored in another way, by a
// Put or by a program with other rules, every [Value] keeps its last good value, and [Value.Err] has the reason.
//
// # Without a quorum
//
// Without a quorum the value stays as it is. [Open] then starts with the last good value from [Config.File], or
// with the value that its node has.
//
// # Versions
//
// Earlier versions are stored under keys of their own: the key of the value, "@", and the revision that stored
// the version. So compaction does not remove them. [Value.History] lists them, and [Value.Rollback] restores one.
//
// # Limits
//
// Rules that concern several values at once need a transaction of your own. Do not use this package for values
// that change many times a second: each change is a write to the log, a decoding on every instance, and with a
// File a sync of each instance's disk.
package sharedconfig
