// SPDX-License-Identifier: Apache-2.0

package coterie

import "io"

// A breakableWriter fails as soon as broken returns an error.
type breakableWriter struct {
	io.Writer
	broken func() error
}

func (w breakableWriter) Write(b []byte) (int, error) {
	if err := w.broken(); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}

// A breakableReader is the same for reading. It keeps the error that ended it, unless that is the
// end of what there is to read.
type breakableReader struct {
	io.Reader
	broken func() error
	err    error
}

func (r *breakableReader) Read(b []byte) (n int, err error) {
	if err = r.broken(); err == nil {
		n, err = r.Reader.Read(b)
	}
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// closed returns what breaks a stream once a node closes.
func closed(closing <-chan struct{}) func() error {
	return func() error {
		select {
		case <-closing:
			return ErrClosed
		default:
			return nil
		}
	}
}
