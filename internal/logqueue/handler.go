// SPDX-License-Identifier: Apache-2.0

package logqueue

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
)

// A handler is the slog.Handler of a Queue, within a scope.
type handler struct {
	queue *Queue
	scope *scope
}

func (h handler) Enabled(context.Context, slog.Level) bool { return true }

func (h handler) Handle(_ context.Context, r slog.Record) error {
	settled := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		settled.AddAttrs(slog.Attr{Key: a.Key, Value: settle(a.Value)})
		return true
	})
	h.queue.put(line{h.scope, settled})
	return nil
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.queue, &scope{in: h.scope, attrs: settleAll(attrs)}}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.queue, &scope{in: h.scope, group: name}}
}

// A scope is the attributes or the group given to a logger, within another scope. Its handler is made for
// the first line, because making it runs code of the underlying handler.
type scope struct {
	in    *scope
	attrs []slog.Attr
	group string
	built slog.Handler // used only by the goroutine of the Queue
}

func (s *scope) handler() slog.Handler {
	switch {
	case s.built != nil:
	case s.group != "":
		s.built = s.in.handler().WithGroup(s.group)
	default:
		s.built = s.in.handler().WithAttrs(s.attrs)
	}
	return s.built
}

// settle returns the current value of v, for a handler that reads it later: values that may change become
// text. Errors do not change, and handlers may need their types.
func settle(v slog.Value) slog.Value {
	switch v.Kind() {
	case slog.KindGroup:
		return slog.GroupValue(settleAll(v.Group())...)
	case slog.KindAny, slog.KindLogValuer:
		if _, ok := v.Any().(error); ok {
			return v
		}
		if v.Kind() == slog.KindLogValuer {
			return settle(v.Resolve())
		}
		switch kind := reflect.ValueOf(v.Any()).Kind(); {
		case kind <= reflect.Complex128, kind == reflect.String: // includes nil
			return v
		}
		return slog.StringValue(fmt.Sprintf("%+v", v.Any()))
	}
	return v
}

func settleAll(attrs []slog.Attr) []slog.Attr {
	settled := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		settled[i] = slog.Attr{Key: a.Key, Value: settle(a.Value)}
	}
	return settled
}
