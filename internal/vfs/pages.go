// SPDX-License-Identifier: Apache-2.0

package vfs

const pageSize = 4 << 10

// pages is what a file holds, in pieces that two of its kind may share until one of them changes. A
// nil page has zeros, and so has everything past the last.
type pages []*page

type page struct {
	b      [pageSize]byte
	shared bool
}

// share returns the same content, to be changed by itself.
func (p pages) share() pages {
	for _, page := range p {
		if page != nil {
			page.shared = true
		}
	}
	return append(pages(nil), p...)
}

// clone returns the same content with no page in common: for a disk with a lock of its own.
func (p pages) clone() pages {
	other := make(pages, len(p))
	for i, old := range p {
		if old != nil {
			other[i] = &page{b: old.b}
		}
	}
	return other
}

// own returns a page to change.
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

// cut forgets everything from an offset on.
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
