// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/coterie-kv/coterie"
)

// An Instance is one process of a service, as the others see it.
type Instance struct {
	ID   string `json:"id"`   // unique in the service
	Addr string `json:"addr"` // where it is reached, as host:port
	Zone string `json:"zone,omitempty"`
	// Weight is its share of the work, beside those of others; 0 counts as 1, and more than
	// math.MaxInt32 as that.
	Weight int `json:"weight,omitempty"`
	// Load is how busy it says that it is, in any unit that all instances use.
	Load     float64           `json:"load,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// ErrIDTaken: another instance has the ID. See [IDTakenError] for which.
var ErrIDTaken = errors.New("registry: another instance has this ID")

// ErrNoInstance: there is no instance of the service, or none that was not tried.
var ErrNoInstance = errors.New("registry: no instance")

// errNoName is of a service without a name.
var errNoName = fmt.Errorf("%w: the name of a service is empty", coterie.ErrInvalidOption)

// An IDTakenError says who has an ID. It matches [ErrIDTaken].
type IDTakenError struct {
	Holder Instance
	Lease  coterie.LeaseID // of the holder: revoked, it makes way
}

func (e *IDTakenError) Error() string {
	return fmt.Sprintf("registry: %s at %s has this ID", e.Holder.ID, e.Holder.Addr)
}

// Is reports whether target is ErrIDTaken.
func (e *IDTakenError) Is(target error) bool { return target == ErrIDTaken }

// encode checks an instance and returns what is stored of it.
func (i Instance) encode() (string, error) {
	switch {
	case i.ID == "" || strings.Contains(i.ID, "/"):
		return "", fmt.Errorf("%w: %q as the ID of an instance: it must not be empty, nor have a slash", coterie.ErrInvalidOption, i.ID)
	case i.Addr == "":
		return "", fmt.Errorf("%w: an instance needs an address", coterie.ErrInvalidOption)
	case i.Weight < 0:
		return "", fmt.Errorf("%w: an instance of weight %d", coterie.ErrInvalidOption, i.Weight)
	}
	b, err := json.Marshal(i)
	if err != nil {
		return "", fmt.Errorf("%w: %w", coterie.ErrInvalidOption, err)
	}
	return string(b), nil
}

// decode returns what a key of a service says, if it says anything.
func decode(kv coterie.KeyValue) (i Instance, ok bool) {
	return i, json.Unmarshal([]byte(kv.Value), &i) == nil && i.ID != "" && i.Addr != ""
}
