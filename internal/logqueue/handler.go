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

// A scope is the attributes or the group that a logger was given, within another scope. The handler
// that has them is made when the first line comes, since making it runs code of the handler's.
type scope struct {
	in    *scope
	attrs []slog.Attr
	group string
	built slog.Handler // only the goroutine of the Queue uses it
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

// settle returns what v is now, for a handler that sees it later: what may change meanwhile becomes
// text. Errors do not change, and handlers may want to know their types.
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
		case kind <= reflect.Complex128, kind == reflect.String: // nil, too
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
