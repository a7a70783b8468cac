// SPDX-License-Identifier: Apache-2.0

package logqueue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A sink is a handler that runs a function before it writes each line.
type sink struct {
	slog.Handler
	before func(message string)
}

func (s sink) Handle(ctx context.Context, r slog.Record) error {
	s.before(r.Message)
	return s.Handler.Handle(ctx, r)
}

func text(w io.Writer) slog.Handler {
	return slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
}

// queued returns a Queue, the number of dropped lines, and how often it resumed.
func queued(t *testing.T, to slog.Handler) (l *slog.Logger, q *Queue, dropped, resumed *atomic.Int64) {
	dropped, resumed = new(atomic.Int64), new(atomic.Int64)
	q = New(Config{To: to, Dropped: func() { dropped.Add(1) }, Resumed: func(n int) { resumed.Add(int64(n)) }})
	t.Cleanup(func() { q.Close(context.Background()) })
	return slog.New(q.Handler()), q, dropped, resumed
}

func TestQueueIsHandler(t *testing.T) {
	var out bytes.Buffer
	_, q, dropped, _ := queued(t, slog.NewJSONHandler(&out, nil))
	require.NoError(t, slogtest.TestHandler(q.Handler(), func() (lines []map[string]any) {
		q.Close(t.Context())
		for d := json.NewDecoder(&out); d.More(); {
			var line map[string]any
			require.NoError(t, d.Decode(&line))
			lines = append(lines, line)
		}
		return lines
	}))
	require.Zero(t, dropped.Load())
}

func TestBlockedHandlerDelaysNoCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		gate := make(chan struct{})
		l, q, dropped, resumed := queued(t, sink{text(&out), func(string) { <-gate }})
		begin := time.Now()
		l.Info("first")
		synctest.Wait() // it is no longer in the queue
		for range Size {
			l.Debug("debug")
		}
		for range Size {
			l.Info("info")
		}
		require.Zero(t, time.Since(begin))
		require.EqualValues(t, Size, dropped.Load(), "half of each")
		time.Sleep(time.Minute)
		require.Zero(t, resumed.Load())
		close(gate)
		synctest.Wait()
		require.EqualValues(t, Size, resumed.Load())
		l.Info("last")
		q.Close(t.Context())
		require.Equal(t, "level=INFO msg=first\n"+strings.Repeat("level=INFO msg=info\n", Size/2)+"level=INFO msg=last\n", out.String())
		require.EqualValues(t, Size, resumed.Load())
	})
}

func TestCloseAbandonsBlockedHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l, q, dropped, _ := queued(t, sink{text(io.Discard), func(string) { <-gate }})
		for range 3 {
			l.Info("line")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		q.Close(ctx)
		require.Equal(t, time.Second, time.Since(begin))
		l.Info("late")
		require.EqualValues(t, 3, dropped.Load(), "two queued lines, and a late one")
		close(gate) // otherwise the goroutine would leak
	})
}

// A panicker panics in every method.
type panicker struct{}

func (panicker) Enabled(context.Context, slog.Level) bool  { panic("Enabled") }
func (panicker) Handle(context.Context, slog.Record) error { panic("Handle") }
func (panicker) WithAttrs([]slog.Attr) slog.Handler        { panic("WithAttrs") }
func (panicker) WithGroup(string) slog.Handler             { panic("WithGroup") }

func TestPanickingHandlerLosesItsLine(t *testing.T) {
	l, q, dropped, _ := queued(t, panicker{})
	l.Info("a")
	l.With("k", "v").Info("b")
	l.WithGroup("g").Info("c")
	q.Close(t.Context())
	require.EqualValues(t, 3, dropped.Load())

	for name, fault := range map[string]func(){"panic": func() { panic("broken") }, "goexit": runtime.Goexit} {
		var out bytes.Buffer
		l, q, dropped, _ = queued(t, sink{text(&out), func(message string) {
			if message == "bad" {
				fault()
			}
		}})
		for _, message := range []string{"one", "bad", "two"} {
			l.Info(message)
		}
		q.Close(t.Context())
		require.Equal(t, "level=INFO msg=one\nlevel=INFO msg=two\n", out.String(), name)
		require.EqualValues(t, 1, dropped.Load(), name)
	}
}

// A thing changes, and has a text.
type thing struct{ name string }

func (s *thing) String() string       { return "thing " + s.name }
func (s *thing) LogValue() slog.Value { return slog.StringValue("log " + s.name) }

type name string

func TestValuesAreTakenWhenLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		gate := make(chan struct{})
		var at time.Time
		var kinds []any
		h := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case slog.TimeKey:
				at = a.Value.Time()
				return slog.Attr{}
			case "name", "err":
				kinds = append(kinds, a.Value.Any())
			}
			return a
		}})
		l, q, _, _ := queued(t, sink{h, func(string) { <-gate }})
		s, list, err := &thing{"old"}, []int{1}, io.ErrUnexpectedEOF
		begin := time.Now()
		l.With("with", list).Info("line", "list", list, "value", s, "group", slog.GroupValue(slog.Any("text", struct{ fmtr }{s})),
			"name", name("n"), "err", err, "nil", nil)
		s.name, list[0] = "new", 2
		time.Sleep(time.Second)
		close(gate)
		q.Close(t.Context())
		require.Equal(t, `level=INFO msg=line with=[1] list=[1] value="log old" group.text="thing old" name=n err="unexpected EOF" nil=<nil>`+"\n", out.String())
		require.True(t, at.Equal(begin))
		require.Equal(t, name("n"), kinds[0])
		require.True(t, errors.Is(kinds[1].(error), io.ErrUnexpectedEOF))
	})
}

// A fmtr has the text of a thing, but not its LogValue.
type fmtr interface{ String() string }
