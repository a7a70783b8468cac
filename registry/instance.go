// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/coterie-kv/coterie"
)

// An Instance describes one process of a service to the others.
type Instance struct {
	ID   string `json:"id"`   // unique in the service
	Addr string `json:"addr"` // the address on which it serves, as host:port
	Zone string `json:"zone,omitempty"`
	// Weight is the share of the work that this instance takes, relative to the other weights. 0 counts
	// as 1, and a weight above math.MaxInt32 counts as math.MaxInt32.
	Weight int `json:"weight,omitempty"`
	// Load is the load that the instance reports, in a unit that all instances of the service use.
	Load     float64           `json:"load,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// ErrIDTaken means that another instance has the ID. An [*IDTakenError] describes that instance.
var ErrIDTaken = errors.New("registry: another instance has this ID")

// ErrNoInstance means that the service has no instance, or none besides those that were tried.
var ErrNoInstance = errors.New("registry: no instance")

// errNoName rejects a service without a name.
var errNoName = fmt.Errorf("%w: the name of a service is empty", coterie.ErrInvalidOption)

// An IDTakenError describes the instance that has an ID. It matches [ErrIDTaken].
type IDTakenError struct {
	Holder Instance        `json:"holder"`
	Lease  coterie.LeaseID `json:"lease"` // the holder's lease; revoke it to free the ID
}

func (e *IDTakenError) Error() string {
	return fmt.Sprintf("registry: %s at %s has this ID", e.Holder.ID, e.Holder.Addr)
}

// Is reports whether target is ErrIDTaken.
func (e *IDTakenError) Is(target error) bool { return target == ErrIDTaken }

// encode checks an instance and returns its stored form.
func (i Instance) encode() (string, error) {
	switch {
	case i.ID == "" || strings.Contains(i.ID, "/"):
		return "", fmt.Errorf("%w: %q is not a valid instance ID: it must not be empty or contain a slash", coterie.ErrInvalidOption, i.ID)
	case i.Addr == "":
		return "", fmt.Errorf("%w: an instance needs an address", coterie.ErrInvalidOption)
	case i.Weight < 0:
		return "", fmt.Errorf("%w: the weight %d of an instance is negative", coterie.ErrInvalidOption, i.Weight)
	}
	b, err := json.Marshal(i)
	if err != nil {
		return "", fmt.Errorf("%w: %w", coterie.ErrInvalidOption, err)
	}
	return string(b), nil
}

// decode returns the instance that a key of a service describes, and whether it describes one.
func decode(kv coterie.KeyValue) (i Instance, ok bool) {
	return i, json.Unmarshal([]byte(kv.Value), &i) == nil && i.ID != "" && i.Addr != ""
}
