// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	if isServer() {
		os.Exit(runServer())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run runs the program with the arguments of a command line.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	list := flags.Bool("list", false, "print the rows and exit")
	pattern := flags.String("run", "", "run the rows whose names match a regular expression")
	quick := flags.Bool("quick", false, "rounds of one second instead of three")
	file := flags.String("json", "", "write every round to a file")
	rounds := flags.Int("rounds", 3, "rounds of each system")
	profiles := flags.String("profile", "", "write profiles of the servers to a directory")
	dir := flags.String("dir", "", "the directory for the data of the servers; default the one for temporary files")
	if err := flags.Parse(args); err != nil {
		return err
	}
	matches, err := regexp.Compile(*pattern)
	if err != nil {
		return err
	}
	p := plan{rounds: max(*rounds, 1), round: 3 * time.Second, scale: full, dir: *dir, profiles: *profiles}
	if *quick {
		p.round = time.Second
	}
	var results []result
	for _, r := range rows() {
		switch {
		case !matches.MatchString(r.name):
		case *list:
			fmt.Fprintf(out, "%-28s %s ≥ %.2f %s: %s\n", r.name, r.systems[1], r.goal, r.systems[0], r.about)
		default:
			result, err := p.run(ctx, r)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			result.print(out)
			results = append(results, result)
		}
	}
	if *file == "" {
		return nil
	}
	return writeJSON(*file, results)
}
