// SPDX-License-Identifier: Apache-2.0

// Package raftlogger writes the log lines of hashicorp/raft to a slog.Logger.
package raftlogger

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"

	"github.com/hashicorp/go-hclog"

	"github.com/coterie-kv/coterie/internal/throttle"
)

// New returns a logger for raft that writes to l. Lines of routine work are at the level Debug, because an
// operator reads the node's own lines. Raft warns of every election and every restart, and reports an error
// several times a second while another node does not answer. Those lines are at Debug as well, and become
// warnings once they have recurred for ten seconds: then one in ten seconds on each subject. Errors about this
// node are written each time. A line with the error expected among its arguments is at Debug.
func New(l *slog.Logger, expected error) hclog.Logger {
	return logger{l.With("part", "raft"), nil, expected, &throttle.Throttle{}, &throttle.Trouble{}}
}

// A logger is a slog.Logger in the form of an hclog.Logger.
type logger struct {
	to       *slog.Logger
	args     []any
	expected error
	warnings *throttle.Throttle
	troubles *throttle.Trouble
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

func (s logger) Log(level hclog.Level, msg string, args ...any) {
	severity := s.severity(level, msg, args)
	if severity == slog.LevelWarn {
		about := msg + subject(args)
		if !s.troubles.Lasts(about) {
			severity = slog.LevelDebug
		} else if omitted, ok := s.warnings.Allow(about); ok {
			args = append(args[:len(args):len(args)], "omitted", omitted)
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
	s.to.Log(context.Background(), severity, msg, args...)
}

// severity returns the level of a line of raft's.
func (s logger) severity(level hclog.Level, msg string, args []any) slog.Level {
	severity := slogLevel(level)
	switch {
	case s.expected != nil && slices.Contains(args, any(s.expected)):
		return slog.LevelDebug // the node itself reports it
	case severity == slog.LevelError && aboutAnotherNode(args):
		return slog.LevelWarn
	case severity == slog.LevelError && entryCompacted(msg, args):
		return slog.LevelDebug // the leader sends the follower a snapshot instead
	}
	return severity
}

// Raft does not mark its errors about other nodes. All of them begin with an attribute that names the node, and
// errors about this node do not: TestRaftNamesOtherNodesFirst checks that in the source of raft.
var nodeKeys = []string{"peer", "target"}

// aboutAnotherNode reports whether the arguments of an error name another node: it does not answer, or refuses.
func aboutAnotherNode(args []any) bool {
	if len(args) == 0 {
		return false
	}
	key, ok := args[0].(string)
	return ok && slices.Contains(nodeKeys, key)
}

// entryCompacted reports whether a leader reports that a follower needs an entry that was compacted.
// Raft has no value for it here, only text.
func entryCompacted(msg string, args []any) bool {
	return msg == "failed to get log" && len(args) > 0 && fmt.Sprint(args[len(args)-1]) == "log not found"
}

// subject returns the value of the first attribute of a line: usually the node that the line is about. An
// index or a term is no subject.
func subject(args []any) string {
	if len(args) < 2 {
		return ""
	}
	if _, ok := args[1].(uint64); ok {
		return ""
	}
	return fmt.Sprint(args[1])
}

func (s logger) Trace(msg string, args ...any) { s.Log(hclog.Trace, msg, args...) }
func (s logger) Debug(msg string, args ...any) { s.Log(hclog.Debug, msg, args...) }
func (s logger) Info(msg string, args ...any)  { s.Log(hclog.Info, msg, args...) }
func (s logger) Warn(msg string, args ...any)  { s.Log(hclog.Warn, msg, args...) }
func (s logger) Error(msg string, args ...any) { s.Log(hclog.Error, msg, args...) }

func (s logger) enabled(level hclog.Level) bool {
	return s.to.Enabled(context.Background(), slogLevel(level))
}

func (s logger) IsTrace() bool { return s.enabled(hclog.Trace) }
func (s logger) IsDebug() bool { return s.enabled(hclog.Debug) }
func (s logger) IsInfo() bool  { return s.enabled(hclog.Info) }
func (s logger) IsWarn() bool  { return s.enabled(hclog.Warn) }
func (s logger) IsError() bool { return s.enabled(hclog.Error) }

func (s logger) ImpliedArgs() []any { return s.args }

func (s logger) With(args ...any) hclog.Logger {
	s.to, s.args = s.to.With(args...), append(s.args[:len(s.args):len(s.args)], args...)
	return s
}

func (s logger) Name() string                   { return "" }
func (s logger) Named(string) hclog.Logger      { return s }
func (s logger) ResetNamed(string) hclog.Logger { return s }
func (s logger) SetLevel(hclog.Level)           {}
func (s logger) GetLevel() hclog.Level          { return hclog.NoLevel }

func (s logger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(s.to.Handler(), slog.LevelDebug)
}

func (s logger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return s.StandardLogger(o).Writer()
}
