// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Attempts has the outcome of the last attempt to reach each address while no leader was known. Errors
// report it.
//
// The zero value is ready for use. The methods may be called concurrently.
type Attempts struct {
	mu   sync.Mutex
	last map[string]error // by address; ErrLeaderless if a node answered
}

// Outcomes that no other error names.
var (
	ErrUntried    = errors.New("no answer yet")
	ErrSilent     = errors.New("no answer in time")
	ErrLeaderless = errors.New("knows no leader")
	// ErrFounded: a founder without data has reached a node that has data.
	ErrFounded = errors.New("has data, and this node has none: it founds no cluster beside that one")
)

// Note notes the outcome of an attempt to reach an address.
func (a *Attempts) Note(addr string, outcome error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		a.last = map[string]error{}
	}
	a.last[addr] = outcome
}

// Forget forgets all outcomes.
func (a *Attempts) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = nil
}

// Outcome returns the outcome of the last attempt to reach an address: ErrUntried if there was none.
func (a *Attempts) Outcome(addr string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.outcome(addr)
}

func (a *Attempts) outcome(addr string) error {
	if err, tried := a.last[addr]; tried {
		return err
	}
	return ErrUntried
}

// A Place is an address, and its text in an error.
type Place struct{ Addr, Text string }

// Summary returns an error for each outcome, in the order of the places. Places with the same outcome
// share one error.
func (a *Attempts) Summary(places []Place) (errs []error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var outcomes []error
	texts := map[string][]string{} // the places, by the outcome's text
	for _, p := range places {
		outcome := a.outcome(p.Addr)
		if texts[outcome.Error()] == nil {
			outcomes = append(outcomes, outcome)
		}
		texts[outcome.Error()] = append(texts[outcome.Error()], p.Text)
	}
	for _, outcome := range outcomes {
		errs = append(errs, fmt.Errorf("%s: %w", strings.Join(texts[outcome.Error()], ", "), outcome))
	}
	return errs
}
