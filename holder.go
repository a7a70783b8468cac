// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// A Holder describes a process that has a lock or an item, or waits for it. As JSON it is the value of the key
// by which the process has it or waits, for operators and for a [HeldError].
type Holder struct {
	Node string `json:"node"` // Config.Name
	Host string `json:"host"`
	PID  int    `json:"pid"`
	// Asked is when the process asked for the lock, by its own clock. It may have waited after that.
	Asked time.Time `json:"asked"`
}

// NewHolder returns a Holder for this process, which asks now, through n. It does not block.
func NewHolder(n *Node) Holder {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return Holder{Node: n.Status().Name, Host: host, PID: os.Getpid(), Asked: time.Now().UTC()}
}

// ParseHolder returns the Holder that is the value of a key. It reports false for other values: earlier
// versions wrote no Holder, a candidate in an [Election] chooses its value itself, and the value of a
// dsync.Semaphore's key is a number of permits.
func ParseHolder(value string) (Holder, bool) {
	var h Holder
	err := json.Unmarshal([]byte(value), &h)
	return h, err == nil && h.Node != "" && !h.Asked.IsZero()
}

// Value returns the Holder as the value of a key.
func (h Holder) Value() string {
	b, err := json.Marshal(h)
	if err != nil {
		return "" // Asked has a year that JSON cannot represent
	}
	return string(b)
}

// String returns the Holder as part of a message.
func (h Holder) String() string {
	return fmt.Sprintf("node %s (host %s, pid %d), which asked for it at %s", h.Node, h.Host, h.PID, h.Asked.Format(time.RFC3339))
}

// A HeldError reports that a call did not get a lock, leadership or a permit because another holder has it.
// It wraps the reason why the call did not wait longer: ctx's cause, or ErrLocked.
type HeldError struct {
	Name  string  `json:"name"`          // of the lock, election or semaphore
	Key   string  `json:"key"`           // of the oldest holder; deleting it frees the lock
	Value string  `json:"value"`         // of that key
	Lease LeaseID `json:"lease"`         // of the holder's session; revoking it frees all that the session has
	Err   error   `json:"err,omitempty"` // why the call did not wait longer
}

// NewHeldError returns a HeldError for the key of a holder.
func NewHeldError(name string, holder KeyValue, err error) *HeldError {
	return &HeldError{Name: name, Key: holder.Key, Value: holder.Value, Lease: holder.Lease, Err: err}
}

// maxShown is how many bytes of a value a message shows.
const maxShown = 100

func (e *HeldError) Error() string {
	if h, ok := ParseHolder(e.Value); ok {
		return fmt.Sprintf("%v: %q is held by %v, with key %q and lease %v", e.Err, e.Name, h, e.Key, e.Lease)
	}
	return fmt.Sprintf("%v: %q is held with key %q, its value %.*q, and lease %v", e.Err, e.Name, e.Key, maxShown, e.Value, e.Lease)
}

// Unwrap returns Err.
func (e *HeldError) Unwrap() error { return e.Err }
