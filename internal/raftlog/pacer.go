// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"io"
	"time"
)

// Pauses of a pacer.
const (
	workSlice   = 100 * time.Microsecond // shorter work needs no pause
	restFactor  = 3                      // a pause is this many times as long as the work before it
	longestRest = 3 * time.Millisecond   // work that other programs delay is not delayed much more
)

// A pacer makes background work pause in proportion to the time that it takes. The goroutines that commit writes then
// wait for a processor or the disk no longer than a slice of the work takes. With its pauses, work takes at most
// 1+restFactor times as long as without. A pacer belongs to one goroutine.
type pacer struct {
	resumed time.Time   // when the last pause ended
	hurry   func() bool // reports whether the work must not pause
}

func newPacer(hurry func() bool) *pacer { return &pacer{time.Now(), hurry} }

// pause pauses if a slice of work is done since the last pause.
func (p *pacer) pause() {
	if worked := time.Since(p.resumed); worked >= workSlice {
		p.rest(min(restFactor*worked, longestRest))
	}
}

// rest pauses for some time.
func (p *pacer) rest(d time.Duration) {
	if !p.hurry() {
		time.Sleep(d)
	}
	p.resumed = time.Now()
}

// A pacedReader pauses after its reads.
type pacedReader struct {
	io.Reader
	pacer *pacer
}

func (r pacedReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.pacer.pause()
	return n, err
}
