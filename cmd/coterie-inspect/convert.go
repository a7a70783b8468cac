// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/boltlog"
	"github.com/coterie-kv/coterie/datadir"
)

// storages are the values of the flag -to. A nil Storage means segments.
var storages = map[string]coterie.Storage{"segments": nil, "bolt": boltlog.New(boltlog.Options{})}

// convert changes the storage of a directory.
func convert(ctx context.Context, args []string, out, complaints io.Writer) int {
	flags := flag.NewFlagSet("coterie-inspect convert", flag.ContinueOnError)
	flags.SetOutput(complaints)
	flags.Usage = func() {
		fmt.Fprintln(complaints, "usage: coterie-inspect convert [-json] -to bolt|segments DIR\nDIR is the directory of a node that is not running.")
		flags.PrintDefaults()
	}
	asJSON := flags.Bool("json", false, "print JSON")
	name := flags.String("to", "", "the new storage: bolt or segments")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return whole
	} else if err != nil {
		return uninspected
	}
	to, ok := storages[*name]
	if !ok || flags.NArg() != 1 {
		flags.Usage()
		return uninspected
	}
	done, err := datadir.Convert(ctx, flags.Arg(0), to)
	if err == nil {
		if *asJSON {
			err = writeJSON(out, done)
		} else {
			_, err = fmt.Fprintln(out, done)
		}
	}
	if err != nil {
		fmt.Fprintln(complaints, "coterie-inspect:", err)
	}
	switch {
	case errors.Is(err, coterie.ErrCorrupt):
		return damaged
	case err != nil:
		return uninspected
	}
	return whole
}
