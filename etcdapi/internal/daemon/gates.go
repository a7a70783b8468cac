// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"strconv"
	"strings"
)

// A gate is a feature gate of etcd. set changes a setting. If set is nil, coteried refuses all values except etcd's
// default.
type gate struct {
	value  bool // etcd's default
	set    func(s *Settings, on bool)
	advice string
}

// etcdGates are etcd's feature gates.
var etcdGates = map[string]gate{
	"InitialCorruptCheck":          {set: func(s *Settings, on bool) { s.Checks.Initial = on }},
	"CompactHashCheck":             {set: func(s *Settings, on bool) { s.Checks.Hashes = on }},
	"StopGRPCServiceOnDefrag":      {advice: "a defragmentation blocks no call, so remove the gate"},
	"LeaseCheckpoint":              {advice: "leases begin their TTL again when a new leader is elected, so remove the gate"},
	"LeaseCheckpointPersist":       {advice: "leases begin their TTL again when a new leader is elected, so remove the gate"},
	"SetMemberLocalAddr":           {advice: "the system chooses the local address, so remove the gate"},
	"PriorityRequest":              {advice: "a full queue of writes still accepts revocations and deletions, so remove the gate"},
	"TxnModeWriteWithSharedBuffer": {value: true, advice: "remove the gate"},
	"FastLeaseKeepAlive":           {value: true, advice: "renewals never wait for the log, so remove the gate"},
}

// gates is the flag --feature-gates.
type gates struct{ settings *Settings }

func (g *gates) Set(text string) error {
	for pair := range strings.SplitSeq(text, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid value of %s: the form is gate=true or gate=false", pair)
		}
		known, ok := etcdGates[name]
		switch {
		case !ok:
			return fmt.Errorf("unrecognized feature gate: %s", name)
		case known.set != nil:
			known.set(g.settings, on)
		case on != known.value:
			g.settings.refusals = append(g.settings.refusals, &RefusedError{"feature-gates", pair, known.advice})
		}
	}
	return nil
}

func (g *gates) String() string { return "" }
