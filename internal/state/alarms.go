// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/wire"
)

// An Alarm is an alarm that is raised. It changes no other part of the state, and rejects no command.
type Alarm struct{ Member, Kind uint64 }

func (a Alarm) compare(b Alarm) int {
	return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(a.Kind, b.Kind))
}

func (a Alarm) append(b []byte) []byte { return wire.Uint(wire.Uint(b, 1, a.Member), 2, a.Kind) }

// Alarms are in the order of their members, then of their kinds. They are immutable.
type Alarms []Alarm

// alarm raises or clears an alarm. It returns the number of alarms that it has changed.
func (s *State) alarm(c *command.Alarm) int64 {
	a := Alarm{c.Member, c.Kind}
	at, raised := slices.BinarySearchFunc(s.alarms, a, Alarm.compare)
	if raised != c.Clear {
		return 0
	}
	s.alarms = slices.Clone(s.alarms)
	if c.Clear {
		s.alarms = slices.Delete(s.alarms, at, at+1)
		s.note(alarmed, a.Member, a.Kind, 0)
	} else {
		s.alarms = slices.Insert(s.alarms, at, a)
		s.note(alarmed, a.Member, a.Kind, 1)
	}
	return 1
}

func (in *restore) addAlarm(b []byte) error {
	var a Alarm
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			a.Member = r.Uint()
		case 2:
			a.Kind = r.Uint()
		}
	}
	alarms := &in.state.alarms
	if n := len(*alarms); n > 0 && (*alarms)[n-1].compare(a) >= 0 {
		return fmt.Errorf("%w: alarm %d of member %x out of order", errSnapshot, a.Kind, a.Member)
	}
	*alarms = append(*alarms, a)
	return r.Err()
}
