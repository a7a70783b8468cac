// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// recordName is the name of the file with the plan, in the data directory.
const recordName = "coteried.json"

// Save keeps the plan in a data directory, which it creates if necessary. The plan is durable when it returns.
func (p Plan) Save(dataDir string) error {
	text, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		return fmt.Errorf("the record of the member: %w", err)
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return err
	}
	return replaceFile(filepath.Join(dataDir, recordName), append(text, '\n'))
}

// Read returns the plan that a data directory has, and whether it has one.
func Read(dataDir string) (p Plan, ok bool, err error) {
	name := filepath.Join(dataDir, recordName)
	text, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Plan{}, false, nil
	case err != nil:
		return Plan{}, false, err
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return Plan{}, false, fmt.Errorf("%s is damaged: %w", name, err)
	}
	return p, true, nil
}

// replaceFile writes a file as a whole or not at all.
func replaceFile(name string, contents []byte) error {
	next, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = next.Write(contents)
	if err == nil {
		err = next.Sync()
	}
	if err = errors.Join(err, next.Close()); err == nil {
		err = os.Rename(next.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next.Name()))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
