// SPDX-License-Identifier: Apache-2.0

package command

import (
	"fmt"
	"math"

	"github.com/coterie-kv/coterie/internal/wire"
)

// Check reports why an entry must not be added to the log: a node that cannot apply an entry has to stop,
// and so has every other node. If Check returns nil, [DecodeEntry] can read the entry, and [Validate]
// accepts its operations. Check allocates nothing, except for transactions that write more than one
// range: entries are decoded when they are applied, and decoding them here would do it twice.
//
// Check must accept every entry that an earlier version of it accepted: leaders send entries from old
// logs.
//
// Errors: *CorruptError, or one that wraps *wire.FormatError, ErrUnknown, wire.ErrMalformed or an error
// of Validate.
func Check(entry []byte) error { return checkEntry(entry, false) }

// CheckForeign is Check for an entry that another node proposes. It also rejects commands that only a
// leader may propose for the cluster.
func CheckForeign(entry []byte) error { return checkEntry(entry, true) }

func checkEntry(entry []byte, foreign bool) error {
	return proposals(entry, func(at int, b []byte) error {
		c := checker{foreign: foreign}
		if err := c.proposal(b); err != nil {
			return proposalError(at, err)
		}
		return nil
	})
}

// A checker checks one proposal.
type checker struct {
	foreign  bool
	overlaps bool // some transaction may write a key twice
}

func (c *checker) proposal(b []byte) error {
	var proposer, registers, begins uint64
	var kinds uint32 // a bit for each
	r := wire.NewReader(b)
	for r.Next() {
		var err error
		field := r.Field()
		switch field {
		case 1:
			proposer = r.Uint()
		case 24:
			registers = r.Uint()
		case 25:
			begins = r.Uint()
		case 23:
			err = checkExpire(r.Bytes())
		case 28:
			err = walk(r.Bytes())
		case 30:
			err = c.as(r.Bytes())
		default:
			var known bool
			if known, err = c.command(field, r.Bytes()); !known {
				continue
			}
		}
		if err != nil {
			return err
		}
		if field >= 10 {
			kinds |= 1 << field
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	if registers == 0 {
		kinds &^= kindRegister
	}
	if begins == 0 {
		kinds &^= kindTerm
	}
	if err := one(kinds); err != nil {
		return err
	}
	if c.foreign && (proposer == 0 || kinds&(kindExpire|kindTerm|kindEnroll) != 0) {
		return &InvalidError{"only a leader may propose this command"}
	}
	if !c.overlaps {
		return nil
	}
	var p Proposal
	if err := p.Decode(b); err != nil {
		return err
	}
	return Validate(&p.Command.Op, math.MaxInt)
}

// as checks the command of a user.
func (c *checker) as(b []byte) error {
	var kinds uint32
	r := wire.NewReader(b)
	for r.Next() {
		known, err := c.command(r.Field(), r.Bytes())
		if err != nil {
			return err
		}
		if known {
			kinds |= 1 << r.Field()
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	return one(kinds)
}

// command checks a field of the kinds of commands that a user can execute. It reports whether the field is one.
func (c *checker) command(field int, b []byte) (known bool, err error) {
	switch field {
	case 10, 11, 12, 13:
		return true, c.op(field, b, maxDepth)
	case 20, 22, 31:
		return true, walk(b)
	case 21:
		return true, checkGrant(b)
	case 29:
		return true, checkAuth(b)
	}
	return false, nil
}

// walk checks the encoding of a message without nested messages.
func walk(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
	}
	return r.Err()
}

func checkGrant(b []byte) error {
	var ttl int64
	r := wire.NewReader(b)
	for r.Next() {
		set(r, 2, &ttl)
	}
	if ttl <= 0 && r.Err() == nil {
		return &InvalidError{"a lease of no duration"}
	}
	return r.Err()
}

func checkExpire(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		if r.Field() != 2 {
			continue
		}
		if err := walk(r.Bytes()); err != nil {
			return err
		}
	}
	return r.Err()
}

// op checks an operation. Its kind is the number of its field.
func (c *checker) op(kind int, b []byte, depth int) error {
	switch kind {
	case 10:
		return checkPut(b)
	case 11:
		return checkGet(b)
	case 12:
		return checkDelete(b)
	}
	return c.txn(b, depth-1)
}

func checkPut(b []byte) error {
	var p struct{ key, value, lease, ignoreValue, ignoreLease bool } // the fields that are set
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			p.key = len(r.Bytes()) > 0
		case 2:
			p.value = len(r.Bytes()) > 0
		case 3:
			p.lease = r.Int() != 0
		case 5:
			p.ignoreValue = r.Bool()
		case 6:
			p.ignoreLease = r.Bool()
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	return judgePut(p.key, p.ignoreValue && p.value, p.ignoreLease && p.lease)
}

func checkGet(b []byte) error {
	var g Get
	key := false
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			key = len(r.Bytes()) > 0
		case 4:
			g.Limit = r.Int()
		case 5:
			g.SortBy = SortTarget(r.Uint())
		case 6:
			g.Order = SortOrder(r.Uint())
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	return judgeGet(key, &g)
}

func checkDelete(b []byte) error {
	key := false
	r := wire.NewReader(b)
	for r.Next() {
		if r.Field() == 1 {
			key = len(r.Bytes()) > 0
		}
	}
	if r.Err() == nil && !key {
		return ErrEmptyKey
	}
	return r.Err()
}

func checkCompare(b []byte) error {
	var target Target
	var op CompareOp
	key := false
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			key = len(r.Bytes()) > 0
		case 3:
			target = Target(r.Uint())
		case 4:
			op = CompareOp(r.Uint())
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	return judgeCompare(key, target, op)
}

func (c *checker) txn(b []byte, depth int) error {
	if depth <= 0 {
		return fmt.Errorf("%w: transactions nest too deeply", wire.ErrMalformed)
	}
	var writes [2]int // in each branch
	r := wire.NewReader(b)
	for r.Next() {
		switch branch := r.Field(); branch {
		case 1:
			if err := checkCompare(r.Bytes()); err != nil {
				return err
			}
		case 2, 3:
			reads, err := c.branchOp(r.Bytes(), depth)
			if err != nil {
				return err
			}
			if !reads {
				writes[branch-2]++
			}
		}
	}
	c.overlaps = c.overlaps || writes[0] > 1 || writes[1] > 1
	return r.Err()
}

// branchOp checks an operation in a branch, and reports whether it is a Get.
func (c *checker) branchOp(b []byte, depth int) (reads bool, err error) {
	var kinds uint32
	r := wire.NewReader(b)
	for r.Next() {
		kind := r.Field()
		if kind < 10 || kind > 13 {
			continue
		}
		if err := c.op(kind, r.Bytes(), depth); err != nil {
			return false, err
		}
		kinds |= 1 << kind
	}
	if r.Err() != nil {
		return false, r.Err()
	}
	return kinds == 1<<11, one(kinds)
}
