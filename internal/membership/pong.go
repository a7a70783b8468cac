// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A Pong is a node's reply to a ping: facts about the node, and its knowledge of the caller.
type Pong struct {
	Member      uint64
	New         bool // the node is on record nowhere, and its log has nothing beyond the founding entries
	Gathered    bool // the node takes part in elections
	Incarnation uint64
	Run         run.Number
	Forgotten   bool // the caller has lost data, as far as the node knows
}

// Append encodes the reply.
func (p Pong) Append(b []byte) []byte {
	b = wire.Uint(b, 1, p.Member)
	b = wire.Bool(b, 2, p.New)
	b = wire.Bool(b, 3, p.Gathered)
	b = wire.Uint(b, 4, p.Incarnation)
	b = wire.Uint(b, 5, p.Run.Count)
	b = wire.Uint(b, 6, p.Run.Draw)
	return wire.Bool(b, 7, p.Forgotten)
}

// ReadPong decodes a reply.
func ReadPong(b []byte) (p Pong, err error) {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			p.Member = r.Uint()
		case 2:
			p.New = r.Bool()
		case 3:
			p.Gathered = r.Bool()
		case 4:
			p.Incarnation = r.Uint()
		case 5:
			p.Run.Count = r.Uint()
		case 6:
			p.Run.Draw = r.Uint()
		case 7:
			p.Forgotten = r.Bool()
		}
	}
	return p, r.Err()
}
