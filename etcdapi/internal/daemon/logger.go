// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// levelOff is the level of dpanic, panic and fatal. coteried has no lines of these levels.
const levelOff = slog.LevelError + 4

// logLevel returns the level of a word of --log-level.
func logLevel(word string) (slog.Level, error) {
	switch word {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "dpanic", "panic", "fatal":
		return levelOff, nil
	}
	return 0, fmt.Errorf("unknown log-level %q: it must be debug, info, warn, error, dpanic, panic or fatal", word)
}

// etcdTime is the form of times in etcd's log.
const etcdTime = "2006-01-02T15:04:05.000000Z0700"

// newLogger returns the log of a daemon, and a function that closes its files. With the format json, the lines have etcd's
// keys: level, ts and msg.
func newLogger(s *LogSettings, stdout, stderr io.Writer) (*slog.Logger, func() error, error) {
	level, err := logLevel(s.Level)
	if err != nil {
		return nil, nil, err
	}
	var writers []io.Writer
	var files []*os.File
	closeFiles := func() error {
		var errs []error
		for _, f := range files {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	for _, output := range s.Outputs {
		switch output {
		case "default", "stderr":
			writers = append(writers, stderr)
		case "stdout":
			writers = append(writers, stdout)
		default:
			f, err := os.OpenFile(output, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
			if err != nil {
				return nil, nil, errors.Join(fmt.Errorf("--log-outputs: %w", err), closeFiles())
			}
			files, writers = append(files, f), append(writers, f)
		}
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: replaceKeys}
	var h slog.Handler = slog.NewJSONHandler(io.MultiWriter(writers...), opts)
	if s.Format == "console" {
		h = slog.NewTextHandler(io.MultiWriter(writers...), opts)
	}
	return slog.New(h), closeFiles, nil
}

// replaceKeys gives the level and the time of a line the form that they have in etcd's log.
func replaceKeys(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		return slog.String("level", strings.ToLower(a.Value.String()))
	case slog.TimeKey:
		return slog.String("ts", a.Value.Time().Format(etcdTime))
	}
	return a
}
