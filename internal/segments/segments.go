// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

const (
	segmentSuffix = ".log"
	// allocateStep is how much space is allocated at a time. A write into allocated space changes nothing
	// but data, which costs the disk less.
	allocateStep = 1 << 20
	// longSync is the size from which the sync of a batch is likely to take long: see vfs.Syncer.
	longSync = 16 << 10
)

// A segment is a file of the log.
type segment struct {
	name      string
	sequence  uint64
	salt      uint64
	file      vfs.File // a removed segment stays open until its last reader is collected: nothing closes it explicitly
	after     uint32   // where the previous segment ends; 0 if there was none
	end       int64    // where the next batch begins
	allocated int64
	zeros     int64  // this process has filled the segment with zeros up to here, ahead of the batches; 0 if it has not
	newest    uint64 // the highest index of an entry in it
}

// segments is the log on the disk. The writer's goroutine owns it, except contents: the writer changes contents with
// mu held, and every goroutine may read it with mu held.
type segments struct {
	fs      vfs.FS
	dir     string
	limit   int64      // size at which a segment ends
	files   []*segment // oldest first; the last one is written to
	applied uint64     // the newest recorded index
	batch   *batch     // of Write
	size    int64      // of the newest batch on the disk
	extents *extents
	syncer  vfs.Syncer // of large batches

	mu       sync.RWMutex
	contents contents
}

func segmentName(sequence uint64) string { return fmt.Sprintf("%016x%s", sequence, segmentSuffix) }

// findSegments returns the segments in a directory, in order. It does not open them.
func findSegments(fs vfs.FS, dir string) (found []*segment, err error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		var sequence uint64
		if _, err := fmt.Sscanf(name, "%x", &sequence); err == nil && name == segmentName(sequence) { // else it is not a segment
			found = append(found, &segment{name: filepath.Join(dir, name), sequence: sequence})
		}
	}
	return found, nil
}

// openAll reads the whole log once. It cuts off a tail that a crash has torn. It returns a *storage.CorruptError for
// any other damage, and for a log that ends before the extent that it had reached.
func (s *segments) openAll(reached *extent) error {
	found, err := findSegments(s.fs, s.dir)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return reached.lost(s.dir, nil, 0)
	}
	var buffer []byte
	for i, g := range found {
		if err := s.open(g, i == len(found)-1, &buffer, reached); err != nil {
			for _, opened := range found[:i+1] {
				opened.release()
			}
			s.files = nil
			return err
		}
	}
	return nil
}

// open reads a segment and removes the part that a crash has torn: the bytes after the last whole batch,
// or the whole file if it has no header.
func (s *segments) open(g *segment, last bool, buffer *[]byte, reached *extent) error {
	c := &s.contents
	b, err := g.load(s.fs, buffer)
	if err != nil {
		return err
	}
	if last { // a killed process may have written data that it did not sync
		if err := g.file.Sync(); err != nil {
			return err
		}
	}
	torn, err := s.read(g, b, last, c)
	if err == nil && last {
		err = reached.lost(s.dir, newestOf(append(s.files, g)), c.last())
	}
	switch {
	case err != nil:
		return err
	case torn && g.end == 0:
		return s.remove(g)
	case torn:
		g.allocated = g.end
		err = errors.Join(g.file.Truncate(g.end), g.file.Sync())
	}
	s.files = append(s.files, g)
	return err
}

// load opens the file of a segment and returns its contents, which are valid until the buffer is used again.
func (g *segment) load(fs vfs.FS, buffer *[]byte) ([]byte, error) {
	var err error
	if g.file, err = fs.Open(g.name); err != nil {
		return nil, err
	}
	if g.allocated, err = g.file.Size(); err != nil {
		return nil, err
	}
	*buffer = slices.Grow((*buffer)[:0], int(g.allocated))
	n, err := g.file.ReadAt((*buffer)[:g.allocated], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return (*buffer)[:n], nil
}

// release closes the file of a segment that has no references.
func (g *segment) release() {
	if g.file != nil {
		_ = g.file.Close() // nothing was written to it since its last sync
	}
}

// read adds the segment that follows those of s, and changes nothing on the disk. It reports whether a
// crash has torn the bytes after the segment's end. The end is 0 if the segment has no header.
func (s *segments) read(g *segment, b []byte, last bool, c *contents) (torn bool, err error) {
	if n := len(s.files); n > 0 && g.sequence != s.files[n-1].sequence+1 {
		return false, &storage.CorruptError{File: g.name, Err: fmt.Errorf("segment %d follows %d", g.sequence, s.files[n-1].sequence)}
	}
	whole, err := g.readHeader(b)
	if err != nil {
		return false, storage.Damaged(g.name, err)
	}
	if !whole {
		if !last || len(b) > segmentHeader && !blank(b[segmentHeader:]) {
			return false, &storage.CorruptError{File: g.name, Err: errors.New("its header is damaged")}
		}
		return true, nil
	}
	if n := len(s.files); n > 0 && g.after != uint32(s.files[n-1].end) {
		return false, &storage.CorruptError{
			File: s.files[n-1].name, Err: fmt.Errorf("it ends at %d, but the next segment expects its end at %d", s.files[n-1].end, g.after),
		}
	}
	for g.end = segmentHeader; g.end < int64(len(b)); {
		body, end, ok := place{g.salt, g.end}.open(b)
		if !ok {
			break
		}
		at := g.end + batchHeader
		err := decodeRecords(body, func(r record, message []byte) error { return s.replay(g, r, message, at, c) })
		if err != nil {
			return false, &storage.CorruptError{File: g.name, Err: fmt.Errorf("batch at %d: %w", g.end, err)}
		}
		g.end = end // the padding may be missing; the next batch is aligned all the same
	}
	return g.torn(b, last)
}

// torn reports whether a crash has left bytes after the last whole batch of a segment. It returns an
// error if a crash cannot be the cause.
func (g *segment) torn(b []byte, last bool) (bool, error) {
	if blank(b[min(g.end, int64(len(b))):]) {
		return false, nil
	}
	if !last {
		return false, &storage.CorruptError{File: g.name, Err: fmt.Errorf("the data at %d is damaged, and there is a later segment", g.end)}
	}
	if at, ok := findBatch(b, g.salt, g.end+1); ok {
		return false, &storage.CorruptError{File: g.name, Err: fmt.Errorf("the data at %d is damaged, and a whole batch follows at %d", g.end, at)}
	}
	return true, nil
}

// blank reports whether b consists of zeros.
func blank(b []byte) bool {
	var zeros [4 << 10]byte
	for ; len(b) > len(zeros); b = b[len(zeros):] {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
	}
	return bytes.Equal(b, zeros[:len(b)])
}

func (s *segments) replay(g *segment, r record, message []byte, body int64, c *contents) error {
	switch r.kind {
	case recordEntry:
		if !c.add(r.index, ref{g, body + int64(r.at), int32(r.size), 0, crc32.Checksum(message, castagnoli)}) {
			return fmt.Errorf("entry %d follows %d", r.index, c.last())
		}
		g.newest = max(g.newest, r.index)
	case recordTruncate:
		c.truncate(r.index)
	case recordReset:
		c.refs = nil
		s.applied = 0
	case recordApplied:
		s.applied = r.index
	}
	return nil
}

func (g *segment) header() []byte {
	b := segmentFormat.Append(nil, segmentHeader)
	binary.LittleEndian.PutUint64(b[8:], g.sequence)
	binary.LittleEndian.PutUint64(b[16:], g.salt)
	binary.LittleEndian.PutUint32(b[24:], g.after)
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b
}

// readHeader reports whether the header is whole. It returns an error if the header is whole but has
// another version: only its checksum is sure to mean the same there.
func (g *segment) readHeader(b []byte) (whole bool, err error) {
	if len(b) < segmentHeader || crc32.Checksum(b[:28], castagnoli) != binary.LittleEndian.Uint32(b[28:]) {
		return false, nil
	}
	if err := segmentFormat.Check(b); errors.Is(err, wire.ErrFormat) {
		return true, err
	}
	g.salt = binary.LittleEndian.Uint64(b[16:])
	g.after = binary.LittleEndian.Uint32(b[24:])
	return bytes.Equal(b[:segmentHeader], g.header()), nil
}

// roll begins a new segment. When roll returns, the segment and its header are durable.
func (s *segments) roll() error {
	g := &segment{sequence: 1, salt: rand.Uint64(), end: segmentHeader}
	if n := len(s.files); n > 0 {
		g.sequence, g.after = s.files[n-1].sequence+1, uint32(s.files[n-1].end)
	}
	g.name = filepath.Join(s.dir, segmentName(g.sequence))
	var err error
	if g.file, err = s.fs.Create(g.name); err != nil {
		return err
	}
	if err = s.allocate(g, segmentHeader); err == nil {
		_, err = g.file.WriteAt(g.header(), 0)
	}
	if err == nil {
		err = errors.Join(g.file.Sync(), s.fs.SyncDir(s.dir))
	}
	if err != nil {
		_ = g.file.Close() // there may be no descriptors left
		return undone(err, s.remove(g))
	}
	s.files = append(s.files, g)
	return nil
}

// undone returns err, combined with undo if undoing the operation failed as well.
func undone(err, undo error) error {
	if undo == nil {
		return err
	}
	return fmt.Errorf("%w, after %v", undo, err)
}

func (s *segments) allocate(g *segment, size int64) error {
	if size <= g.allocated {
		return nil
	}
	step := min(allocateStep, s.limit)
	size = (size + step - 1) / step * step
	if err := g.file.Allocate(size); err != nil {
		return err
	}
	g.allocated = size
	return nil
}

// write makes a batch durable. If the system is short of a resource, write can be called again with the
// same batch, which then goes to the same place.
func (s *segments) write(b *batch) (g *segment, offset int64, err error) {
	if n := len(s.files); n == 0 || s.files[n-1].end+align(int64(b.size())) > s.limit && s.files[n-1].end > segmentHeader {
		if err := s.roll(); err != nil {
			return nil, 0, err
		}
	}
	g = s.files[len(s.files)-1]
	parts, size := b.seal(place{g.salt, g.end})
	if err := s.allocate(g, g.end+size); err != nil {
		return nil, 0, err
	}
	if err := g.put(parts); err != nil {
		g.allocated, g.zeros = g.end, 0
		return nil, 0, undone(err, g.file.Truncate(g.end))
	}
	if err := s.sync(g, size); err != nil {
		return nil, 0, err
	}
	offset = g.end
	g.end += size
	s.size = size
	return g, offset, nil
}

// sync makes a batch of a size durable.
func (s *segments) sync(g *segment, size int64) error {
	if size < longSync {
		return g.file.Sync()
	}
	return s.syncer.Sync(g.file)
}

// put writes the parts of a batch at the end of the segment.
func (g *segment) put(parts [][]byte) error {
	at := g.end
	for _, part := range parts {
		if _, err := g.file.WriteAt(part, at); err != nil {
			return err
		}
		at += int64(len(part))
	}
	return nil
}

// compact removes the oldest segments that have no entry at or after an index. After an error it can be
// called again.
func (s *segments) compact(index uint64) error {
	for len(s.files) > 1 && s.files[0].newest < index {
		if err := s.remove(s.files[0]); err != nil {
			return err
		}
		s.files[0] = nil // else the slice keeps the segment open, and its space allocated
		s.files = s.files[1:]
	}
	return nil
}

// remove removes the file of a segment, if it still exists.
func (s *segments) remove(g *segment) error {
	if err := s.fs.Remove(g.name); err != nil && !missing(err) {
		return err
	}
	return s.fs.SyncDir(s.dir)
}

func (s *segments) close() error {
	var errs []error
	for _, g := range s.files {
		errs = append(errs, g.file.Close())
	}
	errs = append(errs, s.syncer.Close())
	return errors.Join(errs...)
}
