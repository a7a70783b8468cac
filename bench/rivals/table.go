// SPDX-License-Identifier: Apache-2.0

package rivals

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
)

// A Table is a map of keys to values, for systems that replicate a log and leave the state machine to the service. Its
// methods may be called concurrently. The zero Table is empty.
type Table struct {
	mu     sync.RWMutex
	values map[string]string
}

// errCommand is the error of a command that EncodePut has not made.
var errCommand = errors.New("rivals: a command without a key")

// EncodePut returns the command that puts a key: the length of the key, the key, the value.
func EncodePut(key, value string) []byte {
	command := make([]byte, 0, binary.MaxVarintLen16+len(key)+len(value))
	command = binary.AppendUvarint(command, uint64(len(key)))
	command = append(command, key...)
	return append(command, value...)
}

// Apply executes a command. The table keeps no reference to it.
func (t *Table) Apply(command []byte) error {
	length, n := binary.Uvarint(command)
	if n <= 0 || length > uint64(len(command)-n) {
		return errCommand
	}
	put := string(command[n:]) // one allocation for the key and the value
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.values == nil {
		t.values = map[string]string{}
	}
	t.values[put[:length]] = put[length:]
	return nil
}

// Check returns an error unless the value of a key is want.
func (t *Table) Check(key, want string) error {
	t.mu.RLock()
	value, ok := t.values[key]
	t.mu.RUnlock()
	return Check(key, value, ok, want)
}

// Check returns an error unless a read of a key has found the value that it should have.
func Check(key, value string, found bool, want string) error {
	if !found || value != want {
		return fmt.Errorf("rivals: a read of %q returned %q (found: %t)", key, value, found)
	}
	return nil
}

// Copy returns a table with the same keys and values.
func (t *Table) Copy() *Table {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return &Table{values: maps.Clone(t.values)}
}

// Save writes a snapshot: each put, after its length.
func (t *Table) Save(w io.Writer) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	buffered := bufio.NewWriter(w)
	var length [binary.MaxVarintLen64]byte
	for key, value := range t.values {
		command := EncodePut(key, value)
		n := binary.PutUvarint(length[:], uint64(len(command)))
		_, _ = buffered.Write(length[:n]) // Flush returns the error
		_, _ = buffered.Write(command)
	}
	return buffered.Flush()
}

// Load replaces the contents with those of a snapshot.
func (t *Table) Load(r io.Reader) error {
	buffered := bufio.NewReader(r)
	var loaded Table
	for {
		length, err := binary.ReadUvarint(buffered)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		command := make([]byte, length)
		if _, err := io.ReadFull(buffered, command); err != nil {
			return err
		}
		if err := loaded.Apply(command); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.values = loaded.values
	return nil
}
