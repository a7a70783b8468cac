// SPDX-License-Identifier: Apache-2.0

// Coterie-inspect tells what is in a node's directory, or in a backup, and verifies every byte of
// it. It changes nothing. The node must not run.
//
//	coterie-inspect [-json] PATH
//
// With -json it prints of a directory what decodes into a coterie.Inspection.
//
// It exits with 0 when all is well, with 1 when something is damaged, and with 2 when it, or a part of
// it, could not be inspected: a wrong call, no such path, a node that runs, a file that another version
// wrote in a format that this one does not read.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/coterie-kv/coterie"
)

const (
	whole       = 0
	damaged     = 1
	uninspected = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second interrupt ends what does not hear of the first
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, complaints io.Writer) int {
	flags := flag.NewFlagSet("coterie-inspect", flag.ContinueOnError)
	flags.SetOutput(complaints)
	flags.Usage = func() {
		fmt.Fprintln(complaints, "usage: coterie-inspect [-json] PATH\nPATH is the directory of a node that does not run, or a backup.")
		flags.PrintDefaults()
	}
	asJSON := flags.Bool("json", false, "print JSON; IDs are hexadecimal")
	if flags.Parse(args) != nil {
		return uninspected
	}
	if flags.NArg() != 1 {
		flags.Usage()
		return uninspected
	}
	found, err := inspect(ctx, flags.Arg(0))
	if err != nil && !errors.Is(err, coterie.ErrCorrupt) && !errors.Is(err, coterie.ErrFormat) {
		fmt.Fprintln(complaints, "coterie-inspect:", err)
		return uninspected
	}
	var printed error
	if *asJSON {
		printed = writeJSON(out, found)
	} else {
		printed = found.write(out)
	}
	switch {
	case printed != nil:
		fmt.Fprintln(complaints, "coterie-inspect:", printed)
		return uninspected
	case errors.Is(err, coterie.ErrCorrupt):
		return damaged
	case err != nil:
		return uninspected
	}
	return whole
}

func writeJSON(out io.Writer, found report) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(found)
}

// inspect inspects what a path names. There is a report, too, when something is damaged.
func inspect(ctx context.Context, path string) (report, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		found, err := coterie.Inspect(ctx, path)
		return &directory{found}, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() // it was only read
	found, err := coterie.InspectBackup(ctx, file)
	return ofBackup(path, &found, err), err
}
