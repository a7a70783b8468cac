// SPDX-License-Identifier: Apache-2.0

// Package subcommand has the shared parts of the subcommands of coteried: their flags, and their exit codes, which are
// those of etcdctl and etcdutl.
package subcommand

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// The exit codes.
const (
	OK      = 0
	Failed  = 1
	BadArgs = 128
)

// A UsageError is an error in the arguments.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

func (e *UsageError) Unwrap() error { return e.Err }

// Usage returns a UsageError with a text.
func Usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// NewFlags returns flags. Their usage has a synopsis, which is the command line, and a description.
func NewFlags(synopsis, description string) *flag.FlagSet {
	set := flag.NewFlagSet("coteried", flag.ContinueOnError)
	set.SetOutput(io.Discard) // Parse returns the errors, and Exit prints them
	set.Usage = func() {
		fmt.Fprintf(set.Output(), "Usage: coteried %s\n\n%s\n", synopsis, description)
		fmt.Fprint(set.Output(), "\nFlags:\n")
		set.PrintDefaults()
	}
	return set
}

// Parse parses flags, which may come before, between and after the other arguments, and returns the other arguments.
// After "--" there are no flags. For -h and --help it prints the usage to stdout.
//
// Errors: flag.ErrHelp; a UsageError.
func Parse(set *flag.FlagSet, args []string, stdout io.Writer) (rest []string, err error) {
	var after []string
	for i, a := range args {
		if a == "--" {
			args, after = args[:i], args[i+1:]
			break
		}
	}
	for {
		err := set.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			set.SetOutput(stdout)
			set.Usage()
			return nil, err
		}
		if err != nil {
			return nil, &UsageError{err}
		}
		if set.NArg() == 0 {
			return append(rest, after...), nil
		}
		rest, args = append(rest, set.Arg(0)), set.Args()[1:]
	}
}

// FromEnvironment gives flags the values of variables: with the prefix ETCDCTL, --dial-timeout has that of
// ETCDCTL_DIAL_TIMEOUT. Flags of the command line take precedence.
func FromEnvironment(set *flag.FlagSet, prefix string) (err error) {
	set.VisitAll(func(f *flag.Flag) {
		name := prefix + "_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := os.LookupEnv(name); ok && err == nil {
			if err = set.Set(f.Name, v); err != nil {
				err = Usage("%s: %w", name, err)
			}
		}
	})
	return err
}

// Exit prints an error, and returns the exit code for it.
func Exit(stderr io.Writer, err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return OK
	}
	fmt.Fprintln(stderr, "Error:", err)
	if _, usage := errors.AsType[*UsageError](err); usage {
		return BadArgs
	}
	return Failed
}
