// SPDX-License-Identifier: Apache-2.0

package daemon

import "strconv"

// A uint32Value is a flag with a number of 32 bits. Package flag has none.
type uint32Value struct{ n *uint }

func newUint32(n *uint) *uint32Value { return &uint32Value{n} }

func (v *uint32Value) Set(text string) error {
	n, err := strconv.ParseUint(text, 0, 32)
	if err == nil {
		*v.n = uint(n)
	}
	return err
}

func (v *uint32Value) String() string {
	if v.n == nil {
		return ""
	}
	return strconv.FormatUint(uint64(*v.n), 10)
}
