// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"sync"

	"github.com/coterie-kv/coterie/internal/wire"
)

// maxDepth bounds the nesting of transactions, so that no message can exhaust a stack.
const maxDepth = 32

// ErrUnknown: a command of a kind that this version does not know. A newer node made it; this node must
// not continue without applying it.
var ErrUnknown = errors.New("command: unknown kind of command")

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

// size returns the approximate size of an operation's encoding: that of the strings of its puts. The others
// are rarely long.
func (op *Op) size() int {
	switch {
	case op.Put != nil:
		return op.Put.size()
	case op.Txn != nil:
		return op.Txn.size()
	}
	return 0
}

func (p *Put) size() int { return len(p.Key) + len(p.Value) }

func (t *Txn) size() (size int) {
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

// Decode reads a proposal. Its strings are copies.
func (p *Proposal) Decode(b []byte) error {
	*p = Proposal{}
	c := &p.Command
	var as Command // the command of a user, if As is set
	r := wire.NewReader(b)
	for r.Next() {
		var err error
		switch r.Field() {
		case 1:
			p.Proposer = r.Uint()
		case 2:
			p.Seq = r.Uint()
		case 3:
			p.Lowest = r.Uint()
		case 23:
			c.Expire = &Expire{}
			err = c.Expire.decode(r.Bytes())
		case 24:
			c.Register = r.Bool()
		case 26:
			c.Applied = r.Uint()
		case 25:
			c.Term = r.Bool()
		case 27:
			c.Epoch = r.Uint()
		case 28:
			c.Enroll = &Enroll{}
			err = c.Enroll.decode(r.Bytes())
		case 30:
			as = Command{As: &As{}}
			err = as.decodeAs(r.Bytes())
		default:
			err = c.decodeField(r)
		}
		if err != nil {
			return err
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	if !c.Register {
		c.Applied = 0
	}
	if !c.Term {
		c.Epoch = 0
	}
	err := one(c.Put != nil, c.Get != nil, c.Delete != nil, c.Txn != nil, c.Compact != nil, c.Grant != nil, c.Revoke != nil,
		c.Expire != nil, c.Register, c.Term, c.Enroll != nil, c.Auth != nil, c.Alarm != nil, as.As != nil)
	if as.As != nil {
		p.Command = as
	}
	return err
}

// decodeAs reads the command of a user.
func (c *Command) decodeAs(b []byte) error {
	err := fields(b, func(r *wire.Reader) error {
		switch r.Field() {
		case 1:
			c.As.User = r.Text()
		case 2:
			c.As.Revision = r.Uint()
		default:
			return c.decodeField(r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return one(c.Put != nil, c.Get != nil, c.Delete != nil, c.Txn != nil, c.Compact != nil, c.Grant != nil, c.Revoke != nil,
		c.Auth != nil, c.Alarm != nil)
}

// decodeField reads a field of the kinds of commands that a user can execute.
func (c *Command) decodeField(r *wire.Reader) error {
	switch r.Field() {
	case 20:
		c.Compact = &Compact{}
		return fields(r.Bytes(), func(r *wire.Reader) error {
			set(r, 1, &c.Compact.Revision)
			return nil
		})
	case 21:
		c.Grant = &Grant{}
		return fields(r.Bytes(), func(r *wire.Reader) error {
			set(r, 1, &c.Grant.ID)
			set(r, 2, &c.Grant.TTL)
			return nil
		})
	case 22:
		c.Revoke = &Revoke{}
		return fields(r.Bytes(), func(r *wire.Reader) error {
			set(r, 1, &c.Revoke.ID)
			return nil
		})
	case 29:
		c.Auth = &Auth{}
		return c.Auth.decode(r.Bytes())
	case 31:
		c.Alarm = &Alarm{}
		return c.Alarm.decode(r.Bytes())
	}
	return c.Op.decodeField(r, maxDepth)
}

func (a *Alarm) decode(b []byte) error {
	return fields(b, func(r *wire.Reader) error {
		switch r.Field() {
		case 1:
			a.Member = r.Uint()
		case 2:
			a.Kind = r.Uint()
		case 3:
			a.Clear = r.Bool()
		}
		return nil
	})
}

// one checks that a command is of exactly one kind. If it had two, encoders and executors might choose
// different ones.
func one(kinds ...bool) error {
	found := false
	for _, is := range kinds {
		if is && found {
			return fmt.Errorf("%w: a command of two kinds", wire.ErrMalformed)
		}
		found = found || is
	}
	if !found {
		return ErrUnknown
	}
	return nil
}

// readers are those that fields has used. Every node decodes several nested messages a proposal.
var readers = sync.Pool{New: func() any { return new(wire.Reader) }}

// fields calls fn for each field of a nested message. fn does not keep the reader.
func fields(b []byte, fn func(*wire.Reader) error) error {
	r := readers.Get().(*wire.Reader)
	r.Reset(b)
	err := visit(r, fn)
	r.Reset(nil) // so that the pool keeps no message
	readers.Put(r)
	return err
}

func visit(r *wire.Reader, fn func(*wire.Reader) error) error {
	for r.Next() {
		if err := fn(r); err != nil {
			return err
		}
	}
	return r.Err()
}

func set(r *wire.Reader, field int, v *int64) {
	if r.Field() == field {
		*v = r.Int()
	}
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

func (e *Enroll) decode(b []byte) error {
	return fields(b, func(r *wire.Reader) error {
		switch r.Field() {
		case 1:
			e.ID = r.Uint()
		case 2:
			e.Name = r.Text()
		case 3:
			e.Addr = r.Text()
		case 4:
			e.Incarnation = r.Uint()
		case 5:
			e.Voter = r.Bool()
		case 6:
			e.Term = r.Uint()
		case 7:
			e.Run.Count = r.Uint()
		case 8:
			e.Run.Draw = r.Uint()
		case 9:
			e.Described, e.Metadata = true, r.Text()
		case 10:
			e.Start = r.Uint()
		}
		return nil
	})
}

func (e *Expire) decode(b []byte) error {
	return fields(b, func(r *wire.Reader) error {
		switch r.Field() {
		case 1:
			e.Term = r.Uint()
		case 2:
			var id int64
			err := fields(r.Bytes(), func(r *wire.Reader) error { set(r, 1, &id); return nil })
			e.IDs = append(e.IDs, id)
			return err
		}
		return nil
	})
}

func (op *Op) decodeField(r *wire.Reader, depth int) error {
	switch r.Field() {
	case 10:
		op.Put = &Put{}
		return op.Put.decode(r.Bytes())
	case 11:
		op.Get = &Get{}
		return op.Get.decode(r.Bytes())
	case 12:
		op.Delete = &Delete{}
		return op.Delete.decode(r.Bytes())
	case 13:
		op.Txn = &Txn{}
		return op.Txn.decode(r.Bytes(), depth-1)
	}
	return nil
}

func (op *Op) decode(b []byte, depth int) error {
	if err := fields(b, func(r *wire.Reader) error { return op.decodeField(r, depth) }); err != nil {
		return err
	}
	return one(op.Put != nil, op.Get != nil, op.Delete != nil, op.Txn != nil)
}

func (p *Put) decode(b []byte) error {
	return fields(b, func(r *wire.Reader) error {
		switch r.Field() {
		case 1:
			p.Key = r.Text()
		case 2:
			p.Value = r.Text()
		case 3:
			p.Lease = r.Int()
		case 4:
			p.PrevKV = r.Bool()
		case 5:
			p.IgnoreValue = r.Bool()
		case 6:
			p.IgnoreLease = r.Bool()
		}
		return nil
	})
}

func (g *Get) decode(b []byte) error {
	return fields(b, func(r *wire.Reader) error {
		switch r.Field() {
		case 1:
			g.Key = r.Text()
		case 2:
			g.End = r.Text()
		case 3:
			g.Revision = r.Int()
		case 4:
			g.Limit = r.Int()
		case 5:
			g.SortBy = SortTarget(r.Uint())
		case 6:
			g.Order = SortOrder(r.Uint())
		case 7:
			g.KeysOnly = r.Bool()
		case 8:
			g.CountOnly = r.Bool()
		case 9:
			g.MinModRevision = r.Int()
		case 10:
			g.MaxModRevision = r.Int()
		case 11:
			g.MinCreateRevision = r.Int()
		case 12:
			g.MaxCreateRevision = r.Int()
		}
		return nil
	})
}

func (d *Delete) decode(b []byte) error {
	return fields(b, func(r *wire.Reader) error {
		switch r.Field() {
		case 1:
			d.Key = r.Text()
		case 2:
			d.End = r.Text()
		case 3:
			d.PrevKV = r.Bool()
		}
		return nil
	})
}

func (c *Compare) decode(b []byte) error {
	return fields(b, func(r *wire.Reader) error {
		switch r.Field() {
		case 1:
			c.Key = r.Text()
		case 2:
			c.End = r.Text()
		case 3:
			c.Target = Target(r.Uint())
		case 4:
			c.Op = CompareOp(r.Uint())
		case 5:
			c.Int = r.Int()
		case 6:
			c.Text = r.Text()
		}
		return nil
	})
}

func (t *Txn) decode(b []byte, depth int) error {
	if depth <= 0 {
		return fmt.Errorf("%w: transactions nest too deeply", wire.ErrMalformed)
	}
	return fields(b, func(r *wire.Reader) error {
		switch r.Field() {
		case 1:
			var c Compare
			if err := c.decode(r.Bytes()); err != nil {
				return err
			}
			t.Compares = append(t.Compares, c)
		case 2, 3:
			var op Op
			if err := op.decode(r.Bytes(), depth); err != nil {
				return err
			}
			if r.Field() == 2 {
				t.Then = append(t.Then, op)
			} else {
				t.Else = append(t.Else, op)
			}
		}
		return nil
	})
}
