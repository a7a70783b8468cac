// SPDX-License-Identifier: Apache-2.0

package conversion

import (
	"errors"
	"io"
	"path/filepath"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// keep copies the files of the old format to a subdirectory.
func (c *Conversion) keep(files vfs.FS, dir, kept string) error {
	names, err := c.From.Files(files, dir)
	if err != nil {
		return err
	}
	dirs := map[string]bool{kept: true}
	if err := files.MkdirAll(kept); err != nil {
		return err
	}
	for _, name := range names {
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		to := filepath.Join(kept, relative)
		if below := filepath.Dir(to); !dirs[below] {
			dirs[below] = true
			if err := files.MkdirAll(below); err != nil {
				return err
			}
		}
		if err := c.copyFile(files, name, to); err != nil {
			return err
		}
	}
	for below := range dirs {
		if err := files.SyncDir(below); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conversion) copyFile(files vfs.FS, from, to string) error {
	source, err := files.Open(from)
	if err != nil {
		return err
	}
	defer source.Close() // it is only read
	target, err := files.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(c.copyContents(target, source), target.Close())
}

func (c *Conversion) copyContents(target, source vfs.File) error {
	b := make([]byte, 1<<20)
	for at := int64(0); ; {
		if err := c.Broken(); err != nil {
			return err
		}
		n, err := source.ReadAt(b, at)
		if n > 0 {
			if _, err := target.WriteAt(b[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) {
			return target.Sync()
		}
		if err != nil {
			return err
		}
	}
}
