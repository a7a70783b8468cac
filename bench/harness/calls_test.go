// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunMakesTheNumberOfCalls(t *testing.T) {
	for _, l := range []Load{
		{Work: "put", Callers: 7, Ops: 100},
		{Work: "get", Callers: 7, Ops: 500, Keys: 3, Local: true}, // of which some are untimed
	} {
		job, err := Prepare(t.Context(), &System{Stores: []Store{&mapStore{}}}, l)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s, err := job.Run(t.Context(), 0, OwnUsage)
			if err != nil || s.Ops != int64(l.Ops) {
				t.Errorf("%s: %d calls, %v", l.Work, s.Ops, err)
			}
		}
	}
}

// A slowStore takes a millisecond for each read.
type slowStore struct{ mapStore }

func (s *slowStore) Get(context.Context, string, string, bool) error {
	time.Sleep(time.Millisecond)
	return nil
}

func TestUntimedCallsCountForTheMean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job, err := Prepare(t.Context(), &System{Stores: []Store{&slowStore{}}}, Load{Work: "get", Keys: 1, Local: true, Ops: 40})
		if err != nil {
			t.Fatal(err)
		}
		s, err := job.Run(t.Context(), 0, OwnUsage)
		if err != nil || s.Ops != 40 || s.Latency.Mean != time.Millisecond || s.Latency.Max != time.Millisecond {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// BenchmarkEmptyCall measures the harness itself.
func BenchmarkEmptyCall(b *testing.B) {
	for _, c := range []struct {
		name string
		load Load
	}{
		{"put/1000", Load{Work: "put", Callers: 1000}},
		{"get/1000", Load{Work: "get", Callers: 1000, Keys: 1000}},
		{"get/1", Load{Work: "get", Callers: 1, Keys: 1000}},
		{"get/1000/local", Load{Work: "get", Callers: 1000, Keys: 1000, Local: true}},
		{"get/1/local", Load{Work: "get", Callers: 1, Keys: 1000, Local: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.load.Ops = b.N
			sys, err := OpenEmpty(b.Context(), Setup{})
			if err != nil {
				b.Fatal(err)
			}
			job, err := Prepare(b.Context(), sys, c.load)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			s, err := job.Run(b.Context(), 0, OwnUsage)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(s.Server.CPU)/float64(s.Ops), "cpu-ns/op")
		})
	}
}
