// SPDX-License-Identifier: Apache-2.0

// Package breakable has a reader and a writer that can be made to fail from outside: when a context ends or
// a node closes. A long copy to or from a disk or a caller then ends at its next call.
package breakable

import (
	"context"
	"io"
)

// Broken returns the error that makes a stream fail, or nil while the stream may go on.
type Broken func() error

// By returns a Broken that fails with ctx's cause once ctx has ended.
func By(ctx context.Context) Broken { return func() error { return context.Cause(ctx) } }

// When returns a Broken that fails with err once closing is closed.
func When(closing <-chan struct{}, err error) Broken {
	return func() error {
		select {
		case <-closing:
			return err
		default:
			return nil
		}
	}
}

// A Writer writes to another Writer, and fails as soon as Broken returns an error.
type Writer struct {
	io.Writer
	Broken Broken
}

func (w Writer) Write(b []byte) (int, error) {
	if err := w.Broken(); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}

// A Reader reads from another Reader, and fails as soon as Broken returns an error.
type Reader struct {
	io.Reader
	Broken Broken
	// Err is the error that ended reading, or nil: io.EOF does not count. With it a caller tells a failed
	// read from contents that a decoder rejects.
	Err error
}

func (r *Reader) Read(b []byte) (n int, err error) {
	if err = r.Broken(); err == nil {
		n, err = r.Reader.Read(b)
	}
	if err != nil && err != io.EOF {
		r.Err = err
	}
	return n, err
}
