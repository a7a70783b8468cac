// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A Memory is a disk in memory. Nodes use it through Mount. mu guards the fields below it.
type Memory struct {
	forgets bool // there will be a Crash, so data that is not durable is kept apart

	mu      sync.Mutex
	changed sync.Cond // broadcast for anything that an operation may wait for
	dirs    map[string]*directory
	mount   *mount // the latest one
	faults
}

// A directory has the current names, and the names that a crash would leave, with the changes since the
// last sync.
type directory struct {
	names, durable map[string]*content
	pending        []func(map[string]*content)
}

// A content is the contents of a file.
type content struct {
	data, durable     pages
	size, durableSize int64
	pending           []write
	locked            bool
}

// A write is a change of a file since its last sync.
type write struct {
	at   int64 // where data was written; -1 for a change of size
	data []byte
	size int64
}

// NewMemory returns an empty disk that never crashes.
func NewMemory() *Memory {
	m := &Memory{dirs: map[string]*directory{}}
	m.changed.L = &m.mu
	return m
}

// NewForgetful returns an empty disk on which a Crash loses data that was not synced.
func NewForgetful() *Memory {
	m := NewMemory()
	m.forgets = true
	return m
}

// Mount returns the disk as a file system until the next Crash.
func (m *Memory) Mount() FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mount = &mount{disk: m}
	return m.mount
}

// Crash ends the mount, so that its operations fail with os.ErrClosed, and leaves the disk as after a
// power failure: all synced data, and a random part of the rest. If random is nil, nothing of the rest is
// left. A write may be torn anywhere. Changes of a directory survive in order.
func (m *Memory) Crash(random *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mount != nil {
		m.mount.dead = true
	}
	m.frozen, m.limited = false, false
	m.changed.Broadcast()
	for _, d := range m.dirs {
		left := 0
		if random != nil {
			left = random.IntN(len(d.pending) + 1)
		}
		for _, change := range d.pending[:left] {
			change(d.durable)
		}
		d.pending, d.names = nil, maps.Clone(d.durable)
		for _, c := range d.names {
			c.crash(random)
		}
	}
}

// Kill ends the mount as if its process had been killed: all written data stays.
func (m *Memory) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mount != nil {
		m.mount.dead = true
	}
	m.frozen, m.limited = false, false
	m.changed.Broadcast()
	for _, d := range m.dirs {
		for _, c := range d.names {
			c.locked = false
		}
	}
}

// Copy returns a disk with the current files of this one, like a snapshot of a volume: everything is
// durable, no file is locked, and there are no faults.
func (m *Memory) Copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	other := NewForgetful()
	for name, d := range m.dirs {
		names := map[string]*content{}
		for file, c := range d.names {
			names[file] = &content{data: c.data.clone(), size: c.size}
			names[file].sync()
		}
		other.dirs[name] = &directory{names: names, durable: maps.Clone(names)}
	}
	return other
}

func (c *content) crash(random *rand.Rand) {
	c.data, c.size = c.durable, c.durableSize
	for _, w := range c.pending {
		switch {
		case random == nil || random.IntN(2) == 0:
		case w.at < 0:
			c.resize(w.size)
		default:
			c.write(w.data[:random.IntN(len(w.data)+1)], w.at)
		}
	}
	c.locked = false
	c.sync()
}

func (c *content) resize(size int64) {
	c.data.cut(size)
	c.size = size
}

func (c *content) write(b []byte, at int64) {
	c.data.write(b, at)
	c.size = max(c.size, at+int64(len(b)))
}

func (c *content) sync() {
	c.durable, c.durableSize, c.pending = c.data.share(), c.size, nil
}

// A mount is the view of one process on a Memory.
type mount struct {
	disk *Memory
	dead bool
}

// begin waits until an operation is allowed, and counts it if it changes something. Unless it returns an
// error, it returns with the lock held.
func (f *mount) begin(op, name string) error {
	m := f.disk
	m.mu.Lock()
	if f.dead { // operations of a dead process change nothing and must not count
		m.mu.Unlock()
		return &os.PathError{Op: op, Path: name, Err: os.ErrClosed}
	}
	changes := op != "read"
	if changes && m.delay > 0 {
		d := m.delay
		m.mu.Unlock()
		time.Sleep(d)
		m.mu.Lock()
	}
	for changes && m.stalled && !f.dead && !m.frozen {
		m.changed.Wait()
	}
	err := m.faults.allow(op)
	if f.dead || m.frozen {
		err = os.ErrClosed
	}
	if err != nil {
		m.mu.Unlock()
		return &os.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (f *mount) end() { f.disk.mu.Unlock() }

// dir returns the directory of a name. It is called between begin and end.
func (f *mount) dir(name string) (*directory, error) {
	if d := f.disk.dirs[filepath.Dir(name)]; d != nil {
		return d, nil
	}
	return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
}

// change changes a directory. After a crash the change is lost unless it was synced.
func (f *mount) change(d *directory, change func(map[string]*content)) {
	change(d.names)
	if f.disk.forgets {
		d.pending = append(d.pending, change)
	}
}

// MkdirAll implements FS.
func (f *mount) MkdirAll(dir string) error {
	if err := f.begin("read", dir); err != nil {
		return err
	}
	defer f.end()
	var missing []string
	for dir = filepath.Clean(dir); f.disk.dirs[dir] == nil; dir = filepath.Dir(dir) {
		above := f.disk.dirs[filepath.Dir(dir)]
		if above != nil && above.names[filepath.Base(dir)] != nil {
			return &os.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		missing = append(missing, dir)
		if filepath.Dir(dir) == dir {
			break
		}
	}
	for _, dir := range missing {
		f.disk.dirs[dir] = &directory{names: map[string]*content{}, durable: map[string]*content{}}
	}
	return nil
}

// Create implements FS.
func (f *mount) Create(name string) (File, error) {
	c, err := f.create(name, true)
	if err != nil {
		return nil, err
	}
	return &memoryFile{f, c, name}, nil
}

// create makes a file. If it exists, empty says whether it is replaced by an empty one.
func (f *mount) create(name string, empty bool) (*content, error) {
	if err := f.begin("create", name); err != nil {
		return nil, err
	}
	defer f.end()
	d, err := f.dir(name)
	if err != nil {
		return nil, err
	}
	base := filepath.Base(name)
	if c := d.names[base]; c != nil && !empty {
		return c, nil
	}
	c := &content{}
	f.change(d, func(names map[string]*content) { names[base] = c })
	return c, nil
}

// Open implements FS.
func (f *mount) Open(name string) (File, error) {
	if err := f.begin("read", name); err != nil {
		return nil, err
	}
	defer f.end()
	d, err := f.dir(name)
	if err != nil {
		return nil, err
	}
	c := d.names[filepath.Base(name)]
	if c == nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	}
	return &memoryFile{f, c, name}, nil
}

// Rename implements FS. Both names must be in the same directory.
func (f *mount) Rename(from, to string) error {
	if err := f.begin("rename", from); err != nil {
		return err
	}
	defer f.end()
	d, err := f.dir(from)
	if err != nil {
		return err
	}
	old, now := filepath.Base(from), filepath.Base(to)
	if d.names[old] == nil || filepath.Dir(from) != filepath.Dir(to) {
		return &os.PathError{Op: "rename", Path: from, Err: os.ErrNotExist}
	}
	f.change(d, func(names map[string]*content) {
		names[now] = names[old]
		delete(names, old)
	})
	return nil
}

// Remove implements FS.
func (f *mount) Remove(name string) error {
	if err := f.begin("remove", name); err != nil {
		return err
	}
	defer f.end()
	d, err := f.dir(name)
	if err != nil {
		return err
	}
	base := filepath.Base(name)
	if d.names[base] == nil {
		return &os.PathError{Op: "remove", Path: name, Err: os.ErrNotExist}
	}
	f.change(d, func(names map[string]*content) { delete(names, base) })
	return nil
}

// ReadDir implements FS.
func (f *mount) ReadDir(dir string) ([]string, error) {
	if err := f.begin("read", dir); err != nil {
		return nil, err
	}
	defer f.end()
	dir = filepath.Clean(dir)
	d := f.disk.dirs[dir]
	if d == nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: os.ErrNotExist}
	}
	names := slices.Collect(maps.Keys(d.names))
	for below := range f.disk.dirs {
		if below != dir && filepath.Dir(below) == dir {
			names = append(names, filepath.Base(below))
		}
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir implements FS.
func (f *mount) SyncDir(dir string) error {
	if err := f.begin("syncdir", dir); err != nil {
		return err
	}
	defer f.end()
	d := f.disk.dirs[filepath.Clean(dir)]
	if d == nil {
		return &os.PathError{Op: "open", Path: dir, Err: os.ErrNotExist}
	}
	if f.disk.forgets && !f.disk.lying {
		d.pending, d.durable = nil, maps.Clone(d.names)
	}
	return nil
}

// Lock implements FS.
func (f *mount) Lock(name string) (io.Closer, error) {
	file, err := f.Open(name)
	if os.IsNotExist(err) {
		// If two processes come at the same time, the second must not replace the file that the first has
		// locked.
		var c *content
		if c, err = f.create(name, false); err == nil {
			file = &memoryFile{f, c, name}
		}
	}
	if err != nil {
		return nil, err
	}
	l := file.(*memoryFile)
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if l.content.locked {
		return nil, ErrLocked
	}
	l.content.locked = true
	return unlock{l}, nil
}

type unlock struct{ *memoryFile }

// Close releases the lock.
func (u unlock) Close() error {
	u.fs.disk.mu.Lock()
	defer u.fs.disk.mu.Unlock()
	if !u.fs.dead {
		u.content.locked = false
	}
	return nil
}

type memoryFile struct {
	fs      *mount
	content *content
	name    string
}

// ReadAt implements File.
func (f *memoryFile) ReadAt(b []byte, at int64) (int, error) {
	if err := f.fs.begin("read", f.name); err != nil {
		return 0, err
	}
	defer f.fs.end()
	c := f.content
	if at >= c.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), c.size-at))
	c.data.read(b[:n], at)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements File.
func (f *memoryFile) WriteAt(b []byte, at int64) (int, error) {
	op := "write"
	if f.fs.begin("read", f.name) == nil {
		if at+int64(len(b)) > f.content.size {
			op = "grow"
		}
		f.fs.end()
	}
	if err := f.fs.begin(op, f.name); err != nil {
		return 0, err
	}
	defer f.fs.end()
	f.content.write(b, at)
	if f.fs.disk.forgets {
		f.content.pending = append(f.content.pending, write{at: at, data: slices.Clone(b)})
	}
	return len(b), nil
}

// Size implements File.
func (f *memoryFile) Size() (int64, error) {
	if err := f.fs.begin("read", f.name); err != nil {
		return 0, err
	}
	defer f.fs.end()
	return f.content.size, nil
}

// Allocate implements File.
func (f *memoryFile) Allocate(size int64) error {
	now, err := f.Size()
	if err != nil || now >= size {
		return err
	}
	return f.resize("grow", size)
}

// Truncate implements File.
func (f *memoryFile) Truncate(size int64) error { return f.resize("truncate", size) }

func (f *memoryFile) resize(op string, size int64) error {
	if err := f.fs.begin(op, f.name); err != nil {
		return err
	}
	defer f.fs.end()
	f.content.resize(size)
	if f.fs.disk.forgets {
		f.content.pending = append(f.content.pending, write{at: -1, size: size})
	}
	return nil
}

// Flush implements File. A crash may keep any part of what is not durable, with or without Flush.
func (f *memoryFile) Flush(int64, int64) {}

// Sync implements File.
func (f *memoryFile) Sync() error {
	if err := f.fs.begin("sync", f.name); err != nil {
		return err
	}
	defer f.fs.end()
	if f.fs.disk.forgets && !f.fs.disk.lying {
		f.content.sync()
	}
	return nil
}

// Close implements File.
func (f *memoryFile) Close() error { return nil }
