// SPDX-License-Identifier: Apache-2.0

// Coterie-inspect prints the contents of a node's directory or of a backup, and verifies every byte of
// it. It changes nothing. The node must not be running.
//
//	coterie-inspect [-json] PATH
//
// With -json it prints JSON that decodes into a datadir.Inspection for a directory, and into a
// datadir.BackupInspection for a backup. Both have the list damagedFiles.
//
// With the word convert it changes the storage of a directory, as datadir.Convert does, and prints the
// result. The old files are kept in a subdirectory. To inspect a path with the name convert, write
// ./convert.
//
//	coterie-inspect convert [-json] -to bolt|segments DIR
//
// The exit status is 0 if everything is valid, or if the directory was converted; 1 if something is damaged;
// and 2 if the path or a part of it could not be inspected, or not be converted: wrong arguments, no such path,
// a running node, or a file that another version wrote in a format that this one does not read.
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
	"github.com/coterie-kv/coterie/datadir"
)

const (
	whole       = 0
	damaged     = 1
	uninspected = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second interrupt ends reads that ignore ctx
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, complaints io.Writer) int {
	if len(args) > 0 && args[0] == "convert" {
		return convert(ctx, args[1:], out, complaints)
	}
	flags := flag.NewFlagSet("coterie-inspect", flag.ContinueOnError)
	flags.SetOutput(complaints)
	flags.Usage = func() {
		fmt.Fprintln(complaints, "usage: coterie-inspect [-json] PATH\n       coterie-inspect convert [-json] -to bolt|segments DIR\n"+
			"PATH is the directory of a node that is not running, or a backup.")
		flags.PrintDefaults()
	}
	asJSON := flags.Bool("json", false, "print JSON; IDs are hexadecimal")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return whole
	} else if err != nil {
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

func writeJSON(out io.Writer, found any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(found)
}

// inspect inspects the directory or file at path. It also returns a report if something is damaged.
func inspect(ctx context.Context, path string) (report, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		found, err := datadir.Inspect(ctx, path)
		return &directory{found}, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() // it was only read
	found, err := datadir.InspectBackup(ctx, file)
	return ofBackup(path, found, err), err
}
