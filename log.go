// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives raft's messages to l. What raft reports of its daily work is for debugging here: an
// operator reads this package's own messages. Raft warns of every election and every restart, and calls
// it an error, several times a second, that another node does not answer. These are for debugging as
// well, and become warnings once they have lasted for ten seconds, one in ten seconds on each subject.
// Errors of this node are logged each time.
func raftLogger(l *slog.Logger) hclog.Logger {
	return slogger{l.With("part", "raft"), nil, &throttle{}, &persistence{}}
}

// A slogger is a slog.Logger in the shape of an hclog.Logger.
type slogger struct {
	to       *slog.Logger
	args     []any
	warnings *throttle
	troubles *persistence
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
	switch {
	case slices.Contains(args, any(errGathering)): // gather logs it
		as = slog.LevelDebug
	case as != slog.LevelError || len(args) == 0:
	case args[0] == "peer" || args[0] == "target":
		as = slog.LevelWarn
	case msg == "failed to get log" && fmt.Sprint(args[len(args)-1]) == "log not found":
		as = slog.LevelDebug // it was compacted, so the follower is sent a snapshot
	}
	if as == slog.LevelWarn {
		about := msg + subject(args)
		if !s.troubles.lasts(about) {
			as = slog.LevelDebug
		} else if unsaid, ok := s.warnings.due(about); ok {
			args = append(args[:len(args):len(args)], "unsaid", unsaid)
		} else {
			return
		}
	}
	for i, arg := range args {
		if f, ok := arg.(hclog.Format); ok {
			args = slices.Clone(args)
			args[i] = fmt.Sprintf(f[0].(string), f[1:]...)
		}
	}
	s.to.Log(context.Background(), as, msg, args...)
}

// subject returns the first attribute of a message of raft's: the node that it is about, mostly.
func subject(args []any) string {
	if len(args) < 2 {
		return ""
	}
	if _, ok := args[1].(uint64); ok { // an index or a term
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
	return slogger{s.to.With(args...), append(s.args[:len(s.args):len(s.args)], args...), s.warnings, s.troubles}
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
