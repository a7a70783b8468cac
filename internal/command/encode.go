// SPDX-License-Identifier: Apache-2.0

package command

import "github.com/coterie-kv/coterie/internal/wire"

// Append appends the proposal's encoding to b.
func (p *Proposal) Append(b []byte) []byte {
	b = wire.Uint(b, 1, p.Proposer)
	b = wire.Uint(b, 2, p.Seq)
	b = wire.Uint(b, 3, p.Lowest)
	if c := &p.Command; c.As != nil {
		// An earlier version, which would not check the user, does not know this kind of command.
		return wire.LongMessage(b, 30, c.Op.size(), func(b []byte) []byte {
			return c.append(wire.Uint(wire.Text(b, 1, c.As.User), 2, c.As.Revision))
		})
	}
	return p.Command.append(b)
}

// opOverhead is about what an operation or a compare takes beside its strings.
const opOverhead = 10

// size returns the approximate size of an operation's encoding, with its strings.
func (op *Op) size() int {
	switch {
	case op.Put != nil:
		return op.Put.size()
	case op.Get != nil:
		return opOverhead + len(op.Get.Key) + len(op.Get.End)
	case op.Delete != nil:
		return opOverhead + len(op.Delete.Key) + len(op.Delete.End)
	case op.Txn != nil:
		return op.Txn.size()
	}
	return 0
}

func (p *Put) size() int { return opOverhead + len(p.Key) + len(p.Value) }

func (t *Txn) size() int {
	size := opOverhead
	for i := range t.Compares {
		c := &t.Compares[i]
		size += opOverhead + len(c.Key) + len(c.End) + len(c.Text)
	}
	for _, ops := range [...][]Op{t.Then, t.Else} {
		for i := range ops {
			size += ops[i].size()
		}
	}
	return size
}

// append encodes a command without its user.
func (c *Command) append(b []byte) []byte {
	switch {
	case c.Compact != nil:
		b = wire.Message(b, 20, func(b []byte) []byte { return wire.Int(b, 1, c.Compact.Revision) })
	case c.Grant != nil:
		b = wire.Message(b, 21, func(b []byte) []byte { return wire.Int(wire.Int(b, 1, c.Grant.ID), 2, c.Grant.TTL) })
	case c.Revoke != nil:
		b = wire.Message(b, 22, func(b []byte) []byte { return wire.Int(b, 1, c.Revoke.ID) })
	case c.Expire != nil:
		b = wire.Message(b, 23, func(b []byte) []byte {
			b = wire.Uint(b, 1, c.Expire.Term)
			for _, id := range c.Expire.IDs {
				b = wire.Message(b, 2, func(b []byte) []byte { return wire.Int(b, 1, id) })
			}
			return b
		})
	case c.Register:
		b = wire.Bool(b, 24, true)
		b = wire.Uint(b, 26, c.Applied)
	case c.Term:
		b = wire.Bool(b, 25, true)
		b = wire.Uint(b, 27, c.Epoch)
	case c.Enroll != nil:
		b = wire.Message(b, 28, c.Enroll.append)
	case c.Auth != nil:
		b = wire.Message(b, 29, c.Auth.Append)
	case c.Alarm != nil:
		b = wire.Message(b, 31, func(b []byte) []byte {
			return wire.Bool(wire.Uint(wire.Uint(b, 1, c.Alarm.Member), 2, c.Alarm.Kind), 3, c.Alarm.Clear)
		})
	default:
		b = c.Op.append(b)
	}
	return b
}

// append encodes an operation as one of the fields 10 to 13.
func (op *Op) append(b []byte) []byte {
	switch {
	case op.Put != nil:
		return wire.LongMessage(b, 10, op.Put.size(), op.Put.append)
	case op.Get != nil:
		return wire.Message(b, 11, op.Get.append)
	case op.Delete != nil:
		return wire.Message(b, 12, op.Delete.append)
	case op.Txn != nil:
		return wire.LongMessage(b, 13, op.Txn.size(), op.Txn.append)
	}
	return b
}

func (p *Put) append(b []byte) []byte {
	b = wire.Text(b, 1, p.Key)
	b = wire.Text(b, 2, p.Value)
	b = wire.Int(b, 3, p.Lease)
	b = wire.Bool(b, 4, p.PrevKV)
	b = wire.Bool(b, 5, p.IgnoreValue)
	return wire.Bool(b, 6, p.IgnoreLease)
}

func (g *Get) append(b []byte) []byte {
	b = wire.Text(b, 1, g.Key)
	b = wire.Text(b, 2, g.End)
	b = wire.Int(b, 3, g.Revision)
	b = wire.Int(b, 4, g.Limit)
	b = wire.Uint(b, 5, uint64(g.SortBy))
	b = wire.Uint(b, 6, uint64(g.Order))
	b = wire.Bool(b, 7, g.KeysOnly)
	b = wire.Bool(b, 8, g.CountOnly)
	b = wire.Int(b, 9, g.MinModRevision)
	b = wire.Int(b, 10, g.MaxModRevision)
	b = wire.Int(b, 11, g.MinCreateRevision)
	return wire.Int(b, 12, g.MaxCreateRevision)
}

func (d *Delete) append(b []byte) []byte {
	b = wire.Text(b, 1, d.Key)
	b = wire.Text(b, 2, d.End)
	return wire.Bool(b, 3, d.PrevKV)
}

func (c *Compare) append(b []byte) []byte {
	b = wire.Text(b, 1, c.Key)
	b = wire.Text(b, 2, c.End)
	b = wire.Uint(b, 3, uint64(c.Target))
	b = wire.Uint(b, 4, uint64(c.Op))
	b = wire.Int(b, 5, c.Int)
	return wire.Text(b, 6, c.Text)
}

func (t *Txn) append(b []byte) []byte {
	for i := range t.Compares {
		b = wire.Message(b, 1, t.Compares[i].append)
	}
	for i := range t.Then {
		b = wire.LongMessage(b, 2, t.Then[i].size(), t.Then[i].append)
	}
	for i := range t.Else {
		b = wire.LongMessage(b, 3, t.Else[i].size(), t.Else[i].append)
	}
	return b
}

func (e *Enroll) append(b []byte) []byte {
	b = wire.Uint(b, 1, e.ID)
	b = wire.Text(b, 2, e.Name)
	b = wire.Text(b, 3, e.Addr)
	b = wire.Uint(b, 4, e.Incarnation)
	b = wire.Bool(b, 5, e.Voter)
	b = wire.Uint(b, 6, e.Term)
	b = wire.Uint(wire.Uint(b, 7, e.Run.Count), 8, e.Run.Draw)
	if e.Described {
		b = wire.Element(b, 9, e.Metadata)
	}
	return wire.Uint(b, 10, e.Start)
}
