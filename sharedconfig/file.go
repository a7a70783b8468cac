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

// A sealed is the form of Config.File: the JSON of a content, and its CRC-32C.
type sealed struct {
	CRC     uint32          `json:"crc32c"`
	Content json.RawMessage `json:"content"`
}

// A content has the documents of the last good value, nil for a missing key. The documents are bytes, because a JSON
// string would change those that are not UTF-8.
type content struct {
	Cluster   uint64   `json:"cluster"`
	Revision  int64    `json:"revision"`
	Keys      []string `json:"keys"`
	Documents [][]byte `json:"documents"`
}

// loadFile returns the content of a file if the file exists, is undamaged, and has these keys.
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

// unseal returns the content of a file if it is undamaged and has these keys.
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

// save keeps the file current until the Value is closed. After a failure it tries again with the next value.
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
	if last := v.newest.Load(); last != saved { // it was published right before the end
		save(last)
	}
}

// SaveErr returns the error of the last attempt to write Config.File, and nil after a success.
func (v *Value[T]) SaveErr() error {
	if err := v.saving.Load(); err != nil {
		return *err
	}
	return nil
}

// replace writes a file. After a crash at any moment the file is the old one or the new one. The temporary file
// that a failure or a crash leaves is removed by the next call. Each call makes a new temporary file, so that
// it does not write through a link of that name.
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

// syncDir makes the names in a directory durable, on systems where a directory can be opened.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	_ = d.Sync() // some systems reject it and do not need it
	return nil
}
