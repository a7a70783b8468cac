// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A mapStore is a store without members. Its zero value is empty.
type mapStore struct {
	mu     sync.Mutex
	values map[string]string
	broken bool // loses the values
}

func (m *mapStore) Put(_ context.Context, key, value string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = map[string]string{}
	}
	m.values[key] = value
	return nil
}

func (m *mapStore) Get(_ context.Context, key, want string, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if got := m.values[key]; got != want || m.broken {
		return fmt.Errorf("%q has the value %q instead of %q", key, got, want)
	}
	return nil
}

func openMap(context.Context, Setup) (*System, error) {
	return &System{Stores: []Store{&mapStore{}}, Durability: "none", Close: func() error { return nil }}, nil
}

func TestServeAnswersEachQuestion(t *testing.T) {
	in, questions := io.Pipe()
	answers, out := io.Pipe()
	status := make(chan int, 1)
	go func() { status <- Serve(in, out, openMap) }()
	lines := bufio.NewScanner(answers)
	ask := func(q string) (a Answer) {
		fmt.Fprintln(questions, q)
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &a) != nil {
			t.Fatalf("no answer to %s", q)
		}
		return a
	}
	if a := ask(`{"prepare":{"work":"put"}}`); a.Error == "" {
		t.Error("prepared a workload without a system")
	}
	if a := ask(`{"open":{"dir":"` + t.TempDir() + `","members":1}}`); a.Durability != "none" || a.Usage.Allocs == 0 {
		t.Errorf("opened: %+v", a)
	}
	for _, load := range []string{
		`{"work":"put","callers":3}`, `{"work":"get","callers":3,"keys":10}`, `{"work":"overwrite","keys":10,"rate":1000}`,
	} {
		if a := ask(`{"prepare":` + load + `}`); a.Error != "" {
			t.Error(load, a.Error)
		}
		if a := ask(`{"runNanos":10000000}`); a.Sample == nil || a.Sample.Ops < 3 || a.Sample.Latency.Max == 0 {
			t.Errorf("%s: %+v", load, a)
		}
	}
	if a := ask(`{"prepare":{"work":"other"}}`); a.Error == "" {
		t.Error("prepared a workload that does not exist")
	}
	questions.Close()
	if s := <-status; s != 0 {
		t.Error("status", s)
	}
}

func TestSystemWithoutItsAddressOpensAgain(t *testing.T) {
	var dirs []string
	taken := func(ctx context.Context, s Setup) (*System, error) {
		if dirs = append(dirs, s.Dir); len(dirs) < openAttempts {
			return nil, fmt.Errorf("listening: %w", syscall.EADDRINUSE)
		}
		return openMap(ctx, s)
	}
	if _, err := openAnew(t.Context(), taken, Setup{Dir: t.TempDir()}); err != nil || dirs[0] == dirs[1] || dirs[1] == dirs[2] {
		t.Error(err, dirs)
	}
	broken := func(context.Context, Setup) (*System, error) { return nil, errors.ErrUnsupported }
	if _, err := openAnew(t.Context(), broken, Setup{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

func TestRunFailsOnAWrongValue(t *testing.T) {
	m := &mapStore{}
	sys := &System{Stores: []Store{m}}
	for _, work := range []string{"put", "get"} {
		m.broken = false
		job, err := Prepare(t.Context(), sys, Load{Work: work, Keys: 3})
		if err != nil {
			t.Fatal(err)
		}
		m.broken = true
		if _, err := job.Run(t.Context(), time.Millisecond, OwnUsage); err == nil {
			t.Errorf("%s found nothing wrong", work)
		}
	}
}

func TestLatencyIsKnownToTwoPercent(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(i, time.Duration(i+1)*time.Microsecond)
	}
	n, l := h.summary()
	near := func(got, want time.Duration) bool { return got > want*98/100 && got < want*102/100 }
	if n != 1000 || !near(l.P50, 500*time.Microsecond) || !near(l.P99, 990*time.Microsecond) ||
		l.Max != time.Millisecond || !near(l.Mean, 500500) {
		t.Errorf("%d, %+v", n, l)
	}
	for _, d := range []time.Duration{0, 1, 63, 64, 127, 128, time.Hour, -1} {
		h.add(0, d)
	}
}

func TestStoreWithoutAMethodIsAnError(t *testing.T) {
	if _, err := as[Watcher](Store(&mapStore{})); err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

func TestReservedAddressesAreNotReturnedAgain(t *testing.T) {
	seen := map[string]bool{}
	for range 20 { // without reservations, two of 20 overlap nearly always
		addrs, release, err := ReserveAddrs(100)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		for _, addr := range addrs {
			if seen[addr] {
				t.Error(addr)
			}
			seen[addr] = true
		}
	}
}
