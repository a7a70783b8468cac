// SPDX-License-Identifier: Apache-2.0

package shared

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
)

// A file is the content of Config.File: what the last good value was made of.
type file struct {
	Cluster   uint64    `json:"cluster"`
	Revision  int64     `json:"revision"`
	Keys      []string  `json:"keys"`
	Documents []*string `json:"documents"`
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
	var f file
	if json.Unmarshal(b, &f) != nil || !slices.Equal(f.Keys, keys) || len(f.Documents) != len(keys) || f.Revision <= 0 {
		return stored{}, false
	}
	return stored{cluster: f.Cluster, revision: f.Revision, documents: f.Documents}, true
}

// save keeps the file current until the value is closed. One that cannot be written is tried again
// with the next value.
func (v *Value[T]) save() {
	var saved *generation[T]
	save := func(g *generation[T]) bool {
		if g.good.revision > 0 {
			b, err := json.Marshal(file{g.good.cluster, g.good.revision, v.cfg.Keys, g.good.documents})
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
func replace(name string, content []byte) (err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, filepath.Base(name)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncDir(dir)
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
