// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coterie-kv/coterie/bench/recording"
)

// quickRound is the time of a round with -quick. All rows take less than ten minutes.
const quickRound = 600 * time.Millisecond

// callersGC is the percentage that the heap of the callers over the wire may grow between two collections. Their heap is small,
// and by default collections would take a quarter of their CPU, which they share with the servers.
const callersGC = 400

func main() {
	if isChild() {
		os.Exit(runChild())
	}
	debug.SetGCPercent(callersGC)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// growthRound is the least time of a run of a curve. With -quick, all curves take less than eight minutes.
const growthRound = time.Second

// run runs the program with the arguments of a command line.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	list := flags.Bool("list", false, "print the rows and exit")
	pattern := flags.String("run", "", "run the rows with names that match a regular expression; those of rivals only if it is set")
	isQuick := flags.Bool("quick", false, "shorter rounds, and fewer keys")
	file := flags.String("json", "", "write every round to a file")
	rounds := flags.Int("rounds", 3, "rounds of each system")
	growing := flags.Bool("growth", false, "run the curves of growth instead of the rows; -run selects them, -json writes their points")
	feet := flags.Bool("footprint", false, "print a table of an idle cluster and of the size of a program, instead of running rows")
	profiles := flags.String("profile", "", "write profiles of the systems to a directory")
	dir := flags.String("dir", "", "the directory for the data of the systems; default the one for temporary files")
	if err := flags.Parse(args); err != nil {
		return err
	}
	matches, err := regexp.Compile(*pattern)
	if err != nil {
		return err
	}
	p := plan{rounds: max(*rounds, 1), round: 3 * time.Second, scale: full, dir: *dir, profiles: *profiles}
	if *isQuick {
		p.round, p.scale = quickRound, quick
	}
	switch {
	case *growing && *list:
		for _, c := range curves {
			fmt.Fprintf(out, "%-36s %s, against %s\n", c.name, c.about, c.axis)
		}
		return nil
	case *growing:
		p.round, p.scale = max(p.round, growthRound), full // the sizes are those of the curves
		return p.grow(ctx, matches, *file, out)
	case *feet:
		return p.footprint(ctx, out)
	}
	selected := slices.DeleteFunc(rows(), func(r row) bool {
		return !matches.MatchString(r.name) || *pattern == "" && strings.HasPrefix(r.name, "rival/") && !*list
	})
	if *list {
		for _, r := range selected {
			fmt.Fprintf(out, "%-36s %s\n", r.name, r.at(p.scale).about)
		}
		return nil
	}
	if p.bin, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	defer os.RemoveAll(p.bin)
	on := recording.ThisMachine(p.dir) // before the rows: the code may change while they run
	results, err := p.runAll(ctx, selected, out)
	if *file != "" {
		err = errors.Join(err, writeResults(*file, on, results))
	}
	return err
}

// runAll runs rows and prints their results, and then all verdicts together. A row that fails does not stop the others.
func (p plan) runAll(ctx context.Context, selected []row, out io.Writer) (results []result, err error) {
	for _, r := range selected {
		result, failed := p.run(ctx, r)
		if failed != nil {
			fmt.Fprintf(out, "\n%s: %v\n", r.name, failed)
			err = errors.Join(err, fmt.Errorf("%s: %w", r.name, failed))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		result.print(out)
		results = append(results, result)
	}
	fmt.Fprintln(out)
	for _, r := range results {
		for _, v := range r.verdicts() {
			fmt.Fprintln(out, v)
		}
	}
	return results, err
}
