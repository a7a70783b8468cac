// SPDX-License-Identifier: Apache-2.0

package vfs

const pageSize = 4 << 10

// pages are the contents of a file, in pages that two files may share until one changes. A nil page, and
// everything past the last page, is zeros.
type pages []*page

type page struct {
	b      [pageSize]byte
	shared bool
}

// share returns the same contents. Changes to either do not affect the other.
func (p pages) share() pages {
	for _, page := range p {
		if page != nil {
			page.shared = true
		}
	}
	return append(pages(nil), p...)
}

// clone returns a copy that shares no page, for a disk with another lock.
func (p pages) clone() pages {
	other := make(pages, len(p))
	for i, old := range p {
		if old != nil {
			other[i] = &page{b: old.b}
		}
	}
	return other
}

// own returns a page that may be changed.
func (p *pages) own(i int64) *page {
	for int64(len(*p)) <= i {
		*p = append(*p, nil)
	}
	old := (*p)[i]
	if old != nil && !old.shared {
		return old
	}
	fresh := &page{}
	if old != nil {
		fresh.b = old.b
	}
	(*p)[i] = fresh
	return fresh
}

func (p *pages) write(b []byte, at int64) {
	for len(b) > 0 {
		n := copy(p.own(at / pageSize).b[at%pageSize:], b)
		b, at = b[n:], at+int64(n)
	}
}

func (p pages) read(b []byte, at int64) {
	clear(b)
	for len(b) > 0 && at/pageSize < int64(len(p)) {
		n := min(len(b), int(pageSize-at%pageSize))
		if page := p[at/pageSize]; page != nil {
			copy(b[:n], page.b[at%pageSize:])
		}
		b, at = b[n:], at+int64(n)
	}
}

// cut removes everything from an offset on.
func (p *pages) cut(size int64) {
	kept := (size + pageSize - 1) / pageSize
	if int64(len(*p)) < kept {
		return
	}
	clear((*p)[kept:])
	*p = (*p)[:kept]
	if rest := size % pageSize; rest > 0 && (*p)[kept-1] != nil {
		clear(p.own(kept - 1).b[rest:])
	}
}

// flip flips a bit.
func (p *pages) flip(at int64) { p.own(at / pageSize).b[at%pageSize] ^= 1 }
