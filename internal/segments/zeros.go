// SPDX-License-Identifier: Apache-2.0

package segments

// File systems such as ext4 and XFS note which parts of allocated space are written. A sync after the first write to a
// part has to make that note durable, too, in the journal if there is one. A sync after an overwritten zero writes data
// alone. So the writer fills space ahead of the next batches with zeros.
//
// It does that after a batch is durable, when the batch's callers are already answered. If batches are large, the disk
// begins to write the zeros at once. If they are small, hundreds of them share the zeros, and the sync of the first one
// writes all. Zeros are also the only contents of a segment behind its last batch, so they cannot be mistaken for a batch,
// and a crash may leave any part of them.
const (
	zerosLeast = 128 << 10 // how much is filled at a time
	zerosMost  = 4 * zerosLeast
	// zerosBatch is the size up to which a batch has zeros ahead of it. They double the bytes that the disk writes, which
	// costs larger batches more than the note does.
	zerosBatch = zerosMost
	// zerosFor is the number of batches that overwrite the zeros that are filled at a time, within the limits above. The
	// note about them is durable with the first of these batches.
	zerosFor = 4
)

var zeros = [zerosMost]byte{} // never changed

// prepare fills space behind the newest batch with zeros, unless two more batches of its size fit into those that are
// there. It returns no error, because the batch is durable. The next batch finds out if the disk has failed.
func (s *segments) prepare() {
	g, size := s.files[len(s.files)-1], s.size
	if size > zerosBatch || g.end+size > s.limit || g.end+2*size <= g.zeros {
		return
	}
	from := max(g.zeros, g.end)
	to := min(from+min(max(zerosFor*size, zerosLeast), zerosMost), s.limit)
	if to <= from || s.allocate(g, to) != nil { // the next batch tries again
		return
	}
	if _, err := g.file.WriteAt(zeros[:to-from], from); err != nil {
		g.zeros = s.limit // this file system does not reserve space: the batches of this segment need it more than zeros
		return
	}
	g.zeros = to
	if size >= longSync { // before the next batch comes, the disk has time to write some of them
		g.file.Flush(from, to-from)
	}
}
