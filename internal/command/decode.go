// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie/internal/wire"
)

// maxDepth bounds the nesting of transactions, so that no message can exhaust a stack.
const maxDepth = 32

// ErrUnknown says that a command is of a kind that this version does not know. A newer node made the command.
// This node must not continue without applying it.
var ErrUnknown = errors.New("command: unknown kind of command")

// A Decoder decodes log entries. It reuses the memory of the proposals, so that it allocates nothing for
// operations, grants and revocations: every node decodes every entry. The zero value is ready for use.
type Decoder struct {
	copies    bool // the strings of operations are copies
	proposals arena[Proposal]
	users     arena[As]
	puts      arena[Put]
	gets      arena[Get]
	deletes   arena[Delete]
	txns      arena[Txn]
	compares  arena[Compare]
	ops       arena[Op]
	grants    arena[Grant]
	revokes   arena[Revoke]
}

// Decode returns the proposals of an entry. They are valid until the next call of Reset, which must precede the
// next call of Decode.
//
// The strings of operations and of As share the memory of the entry, which must not change as long as they
// are used. A string that is kept longer has to be copied. All other strings are copies.
//
// Errors: *CorruptError, *wire.FormatError, which may wrap ErrUnknown, or one that wraps wire.ErrMalformed.
func (d *Decoder) Decode(entry []byte) ([]Proposal, error) {
	// The first pass counts, so that the proposals are next to each other.
	count := 0
	err := proposals(entry, func(int, []byte) error { count++; return nil })
	if err != nil {
		return nil, err
	}
	all := list(&d.proposals, count)
	next := 0
	err = split(entry, func(at int, b []byte) error {
		p := &all[next]
		next++
		if err := d.proposal(p, b); err != nil {
			return proposalError(at, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Reset ends the use of all proposals that Decode has returned. Their memory is reused, and keeps no entry.
func (d *Decoder) Reset() {
	d.proposals.reset()
	d.users.reset()
	d.puts.reset()
	d.gets.reset()
	d.deletes.reset()
	d.txns.reset()
	d.compares.reset()
	d.ops.reset()
	d.grants.reset()
	d.revokes.reset()
}

// DecodeEntry returns the proposals of an entry, as Decoder.Decode does. They stay valid as long as the entry
// does not change.
func DecodeEntry(entry []byte) ([]Proposal, error) { return new(Decoder).Decode(entry) }

// An arena is memory for values that are used for the same time.
type arena[T any] []T

// keep is how many values an arena has memory for when they are not used. An entry with more is rare.
const keep = 8 << 10

// take returns n zero values next to each other.
func (a *arena[T]) take(n int) []T {
	at := len(*a)
	if n > cap(*a)-at {
		// The values in the old memory stay there. Nothing is copied.
		*a, at = make([]T, 0, max(n, 2*cap(*a))), 0
	}
	*a = (*a)[:at+n]
	return (*a)[at : at+n : at+n]
}

// one returns a zero value.
func (a *arena[T]) one() *T { return &a.take(1)[0] }

func (a *arena[T]) reset() {
	if cap(*a) > keep {
		*a = nil
	}
	clear(*a)
	*a = (*a)[:0]
}

// Decode reads a proposal. Its strings are copies.
func (p *Proposal) Decode(b []byte) error {
	*p = Proposal{}
	d := Decoder{copies: true}
	return d.proposal(p, b)
}

func (d *Decoder) text(r *wire.Reader) string {
	if d.copies {
		return r.Text()
	}
	return r.Shared()
}

// The kinds of a command are a set with a bit for the field of each.
const (
	kindExpire   = 1 << 23
	kindRegister = 1 << 24
	kindTerm     = 1 << 25
	kindEnroll   = 1 << 28
	kindAs       = 1 << 30
)

// proposal reads a proposal into p, which is zero.
func (d *Decoder) proposal(p *Proposal, b []byte) error {
	c := &p.Command
	var register, term bool
	kinds := uint32(0)
	r := wire.NewReader(b)
	for r.Next() {
		var err error
		switch field := r.Field(); field {
		case 1:
			p.Proposer = r.Uint()
		case 2:
			p.Seq = r.Uint()
		case 3:
			p.Lowest = r.Uint()
		case 23:
			c.Expire = &Expire{}
			kinds |= kindExpire
			err = c.Expire.decode(r.Bytes())
		case 24:
			register = r.Bool()
		case 26:
			c.Applied = r.Uint()
		case 25:
			term = r.Bool()
		case 27:
			c.Epoch = r.Uint()
		case 28:
			c.Enroll = &Enroll{}
			kinds |= kindEnroll
			err = c.Enroll.decode(r.Bytes())
		case 30:
			*c = Command{} // the last field counts; with one of another kind, the command is malformed
			kinds |= kindAs
			err = d.as(c, r.Bytes())
		default:
			var kind uint32
			kind, err = d.command(c, field, r.Bytes())
			kinds |= kind
		}
		if err != nil {
			return err
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	if c.Register = register; register {
		kinds |= kindRegister
	} else {
		c.Applied = 0
	}
	if c.Term = term; term {
		kinds |= kindTerm
	} else {
		c.Epoch = 0
	}
	return one(kinds)
}

// as reads the command of a user.
func (d *Decoder) as(c *Command, b []byte) error {
	c.As = d.users.one()
	kinds := uint32(0)
	r := wire.NewReader(b)
	for r.Next() {
		switch field := r.Field(); field {
		case 1:
			c.As.User = d.text(r)
		case 2:
			c.As.Revision = r.Uint()
		default:
			kind, err := d.command(c, field, r.Bytes())
			if err != nil {
				return err
			}
			kinds |= kind
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	return one(kinds)
}

// command reads a field of a command, if it is of a kind that a user can execute. It returns the kind, or 0.
func (d *Decoder) command(c *Command, field int, b []byte) (kind uint32, err error) {
	switch field {
	case 10, 11, 12, 13:
		err = d.op(&c.Op, field, b, maxDepth)
	case 20:
		c.Compact = &Compact{}
		err = c.Compact.decode(b)
	case 21:
		c.Grant = d.grants.one()
		err = c.Grant.decode(b)
	case 22:
		c.Revoke = d.revokes.one()
		err = c.Revoke.decode(b)
	case 29:
		c.Auth = &Auth{}
		err = c.Auth.decode(b)
	case 31:
		c.Alarm = &Alarm{}
		err = c.Alarm.decode(b)
	default:
		return 0, nil
	}
	return 1 << field, err
}

// one checks that a command is of exactly one kind. If it had two, encoders and executors might choose
// different ones.
func one(kinds uint32) error {
	switch {
	case kinds == 0:
		return ErrUnknown
	case kinds&(kinds-1) != 0:
		return fmt.Errorf("%w: a command of two kinds", wire.ErrMalformed)
	}
	return nil
}

// op reads an operation. Its kind is the number of its field, 10 to 13.
func (d *Decoder) op(op *Op, kind int, b []byte, depth int) (err error) {
	switch kind {
	case 10:
		op.Put = d.puts.one()
		return d.put(op.Put, b)
	case 11:
		op.Get = d.gets.one()
		return d.get(op.Get, b)
	case 12:
		op.Delete = d.deletes.one()
		return d.delete(op.Delete, b)
	}
	op.Txn = d.txns.one()
	return d.txn(op.Txn, b, depth-1)
}

func (d *Decoder) put(p *Put, b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			p.Key = d.text(r)
		case 2:
			p.Value = d.text(r)
		case 3:
			p.Lease = r.Int()
		case 4:
			p.PrevKV = r.Bool()
		case 5:
			p.IgnoreValue = r.Bool()
		case 6:
			p.IgnoreLease = r.Bool()
		}
	}
	return r.Err()
}

func (d *Decoder) get(g *Get, b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			g.Key = d.text(r)
		case 2:
			g.End = d.text(r)
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
	}
	return r.Err()
}

func (d *Decoder) delete(del *Delete, b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			del.Key = d.text(r)
		case 2:
			del.End = d.text(r)
		case 3:
			del.PrevKV = r.Bool()
		}
	}
	return r.Err()
}

func (d *Decoder) compare(c *Compare, b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			c.Key = d.text(r)
		case 2:
			c.End = d.text(r)
		case 3:
			c.Target = Target(r.Uint())
		case 4:
			c.Op = CompareOp(r.Uint())
		case 5:
			c.Int = r.Int()
		case 6:
			c.Text = d.text(r)
		}
	}
	return r.Err()
}

// txn reads a transaction. It counts the compares and operations first, so that each list takes its memory once.
func (d *Decoder) txn(t *Txn, b []byte, depth int) error {
	if depth <= 0 {
		return fmt.Errorf("%w: transactions nest too deeply", wire.ErrMalformed)
	}
	var counts [4]int // of the fields 1 to 3
	r := wire.NewReader(b)
	for r.Next() {
		if field := r.Field(); field < len(counts) {
			counts[field]++
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	t.Compares = list(&d.compares, counts[1])
	t.Then, t.Else = list(&d.ops, counts[2]), list(&d.ops, counts[3])
	compares, then, els := t.Compares, t.Then, t.Else // those that are not read yet
	r.Reset(b)
	for r.Next() {
		var err error
		switch r.Field() {
		case 1:
			err = d.compare(&compares[0], r.Bytes())
			compares = compares[1:]
		case 2:
			err = d.branchOp(&then[0], r.Bytes(), depth)
			then = then[1:]
		case 3:
			err = d.branchOp(&els[0], r.Bytes(), depth)
			els = els[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// list takes n values from an arena, and nil for none.
func list[T any](a *arena[T], n int) []T {
	if n == 0 {
		return nil
	}
	return a.take(n)
}

// branchOp reads an operation in a branch of a transaction.
func (d *Decoder) branchOp(op *Op, b []byte, depth int) error {
	kinds := uint32(0)
	r := wire.NewReader(b)
	for r.Next() {
		kind := r.Field()
		if kind < 10 || kind > 13 {
			continue
		}
		if err := d.op(op, kind, r.Bytes(), depth); err != nil {
			return err
		}
		kinds |= 1 << kind
	}
	if r.Err() != nil {
		return r.Err()
	}
	return one(kinds)
}

func (c *Compact) decode(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		set(r, 1, &c.Revision)
	}
	return r.Err()
}

func (g *Grant) decode(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		set(r, 1, &g.ID)
		set(r, 2, &g.TTL)
	}
	return r.Err()
}

func (v *Revoke) decode(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		set(r, 1, &v.ID)
	}
	return r.Err()
}

func set(r *wire.Reader, field int, v *int64) {
	if r.Field() == field {
		*v = r.Int()
	}
}

func (a *Alarm) decode(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			a.Member = r.Uint()
		case 2:
			a.Kind = r.Uint()
		case 3:
			a.Clear = r.Bool()
		}
	}
	return r.Err()
}

func (e *Expire) decode(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			e.Term = r.Uint()
		case 2:
			var lease Revoke // the messages are the same
			if err := lease.decode(r.Bytes()); err != nil {
				return err
			}
			e.IDs = append(e.IDs, lease.ID)
		}
	}
	return r.Err()
}

func (e *Enroll) decode(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
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
	}
	return r.Err()
}
