// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

// byHand runs one workload, which the arguments of a command line describe, and prints the sample.
func byHand(ctx context.Context, args []string, out io.Writer, open Opener) (err error) {
	flags := flag.NewFlagSet("system", flag.ContinueOnError)
	var s Setup
	var l Load
	flags.StringVar(&s.System, "system", "", "the system; default the first one of the program")
	flags.StringVar(&s.Dir, "dir", "", "the directory for the data; default one for temporary files")
	flags.IntVar(&s.Members, "members", 3, "members of the cluster")
	flags.StringVar(&l.Work, "work", "put", fmt.Sprintf("the workload, one of %v", Works()))
	flags.IntVar(&l.Callers, "callers", 1000, "goroutines that make calls")
	flags.StringVar((*string)(&l.Place), "place", string(OnLeader), "the members that are called: leader, follower or all")
	flags.BoolVar(&l.Local, "local", false, "reads are serializable")
	flags.IntVar(&l.Keys, "keys", 1000, "keys that are put before")
	flags.IntVar(&l.ValueBytes, "value", defaultValueBytes, "bytes of a value")
	d := flags.Duration("for", 3*time.Second, "how long the workload runs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.Dir == "" {
		if s.Dir, err = os.MkdirTemp("", "bench"); err != nil {
			return err
		}
		defer os.RemoveAll(s.Dir)
	}
	c := child{open: open}
	defer func() { err = errors.Join(err, c.close()) }()
	for _, q := range []Question{{Open: &s}, {Prepare: &l}, {Run: *d / 2}, {Run: *d}} { // the first run is a warm-up
		a, err := c.answer(ctx, q)
		if err != nil {
			return err
		}
		if a.Durability != "" {
			fmt.Fprintln(out, a.Durability)
		}
		if q.Run == *d {
			text, err := json.MarshalIndent(a.Sample, "", "\t")
			if err != nil {
				return err
			}
			fmt.Fprintln(out, string(text))
		}
	}
	return nil
}
