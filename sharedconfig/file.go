// SPDX-License-Identifier: Apache-2.0

package sharedconfig

import (
	"context"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A sealed is what Config.File has: the JSON of a content, and the CRC-32C of that.
type sealed struct {
	CRC     uint32          `json:"crc32c"`
	Content json.RawMessage `json:"content"`
}

// A content is what the last good value was made of. Its documents are bytes, nil for a key that
// there was not, since the text of JSON would change those that are no UTF-8.
type content struct {
	Cluster   uint64   `json:"cluster"`
	Revision  int64    `json:"revision"`
	Keys      []string `json:"keys"`
	Documents [][]byte `json:"documents"`
}

// loadFile returns what a file has, if it is there, whole, and of these keys.
func loadFile(name string, keys []string) (stored, bool) {
	if name == "" {
		return stored{}, false
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return stored{}, false
	}
	return unseal(b, keys)
}

// unseal returns what the bytes of a file have, if they are whole and of these keys.
func unseal(b []byte, keys []string) (stored, bool) {
	var s sealed
	if json.Unmarshal(b, &s) != nil || s.CRC != checksum(s.Content) {
		return stored{}, false
	}
	var c content
	if json.Unmarshal(s.Content, &c) != nil || !slices.Equal(c.Keys, keys) || len(c.Documents) != len(keys) || c.Revision <= 0 {
		return stored{}, false
	}
	found := stored{cluster: c.Cluster, revision: c.Revision, documents: make([]*string, len(keys))}
	for i, d := range c.Documents {
		if d != nil {
			document := string(d)
			found.documents[i] = &document
		}
	}
	return found, true
}

// seal returns the bytes of a file.
func seal(s stored, keys []string) ([]byte, error) {
	c := content{s.cluster, s.revision, keys, make([][]byte, len(keys))}
	for i, d := range s.documents {
		if d != nil {
			c.Documents[i] = []byte(*d)
		}
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return json.Marshal(sealed{checksum(b), b})
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// save keeps the file current until the value is closed. One that cannot be written is tried again
// with the next value.
func (v *Value[T]) save() {
	var saved *generation[T]
	save := func(g *generation[T]) bool {
		if g.good.revision > 0 {
			b, err := seal(g.good, v.cfg.Keys)
			if err == nil {
				err = replace(v.cfg.File, b)
			}
			v.saving.Store(&err)
		}
		saved = g
		return true
	}
	_ = v.generations(context.Background(), save)
	if last := v.newest.Load(); last != saved { // it came right before the end
		save(last)
	}
}

// SaveErr returns why Config.File could not be written, the last time that was tried.
func (v *Value[T]) SaveErr() error {
	if err := v.saving.Load(); err != nil {
		return *err
	}
	return nil
}

// replace writes a file so that there is the old one or the new one after a crash at any moment.
// What it leaves when it fails, or when the process crashes amid it, the next one removes. It makes
// its file anew, so that it does not write to what somebody else has linked to that name.
func replace(name string, b []byte) error {
	temporary := name + ".tmp"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(temporary, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes a directory's names durable, where a directory can be opened for that.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	_ = d.Sync() // some systems refuse it, and need it not
	return nil
}
