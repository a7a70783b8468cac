// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives raft's messages to l. What raft reports of its daily work is for debugging here:
// an operator reads this package's own messages. What goes wrong with another node, which raft tells of
// as an error and several times a second for as long as that is away, is a warning, and warnings are
// told once in a while. Errors of this node are told each time.
func raftLogger(l *slog.Logger) hclog.Logger {
	return slogger{l.With("part", "raft"), nil, &throttle{}}
}

// A slogger is a slog.Logger in the shape of an hclog.Logger.
type slogger struct {
	to       *slog.Logger
	args     []any
	warnings *throttle
}

func slogLevel(level hclog.Level) slog.Level {
	switch {
	case level >= hclog.Error:
		return slog.LevelError
	case level == hclog.Warn:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (s slogger) Log(level hclog.Level, msg string, args ...any) {
	as := slogLevel(level)
	if as == slog.LevelError && len(args) > 0 && (args[0] == "peer" || args[0] == "target") {
		as = slog.LevelWarn
	}
	if as == slog.LevelWarn {
		unsaid, ok := s.warnings.due(msg + subject(args))
		if !ok {
			return
		}
		args = append(args[:len(args):len(args)], "unsaid", unsaid)
	}
	s.to.Log(context.Background(), as, msg, args...)
}

// subject is whom a message of raft's is about: the first of its attributes.
func subject(args []any) string {
	if len(args) < 2 {
		return ""
	}
	return fmt.Sprint(args[1])
}

func (s slogger) Trace(msg string, args ...any) { s.Log(hclog.Trace, msg, args...) }
func (s slogger) Debug(msg string, args ...any) { s.Log(hclog.Debug, msg, args...) }
func (s slogger) Info(msg string, args ...any)  { s.Log(hclog.Info, msg, args...) }
func (s slogger) Warn(msg string, args ...any)  { s.Log(hclog.Warn, msg, args...) }
func (s slogger) Error(msg string, args ...any) { s.Log(hclog.Error, msg, args...) }

func (s slogger) enabled(level hclog.Level) bool {
	return s.to.Enabled(context.Background(), slogLevel(level))
}

func (s slogger) IsTrace() bool { return s.enabled(hclog.Trace) }
func (s slogger) IsDebug() bool { return s.enabled(hclog.Debug) }
func (s slogger) IsInfo() bool  { return s.enabled(hclog.Info) }
func (s slogger) IsWarn() bool  { return s.enabled(hclog.Warn) }
func (s slogger) IsError() bool { return s.enabled(hclog.Error) }

func (s slogger) ImpliedArgs() []any { return s.args }

func (s slogger) With(args ...any) hclog.Logger {
	return slogger{s.to.With(args...), append(s.args[:len(s.args):len(s.args)], args...), s.warnings}
}

func (s slogger) Name() string                   { return "" }
func (s slogger) Named(string) hclog.Logger      { return s }
func (s slogger) ResetNamed(string) hclog.Logger { return s }
func (s slogger) SetLevel(hclog.Level)           {}
func (s slogger) GetLevel() hclog.Level          { return hclog.NoLevel }

func (s slogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(s.to.Handler(), slog.LevelDebug)
}

func (s slogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return s.StandardLogger(o).Writer()
}
