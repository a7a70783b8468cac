// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

// loseMajority kills all four nodes and removes two of their directories, so no majority can come back. The
// operator inspects the remaining directories, and recovers the cluster from the one with the newest
// entries. The other nodes join again with empty directories, because their old ones are rejected.
func loseMajority(o *operator) error {
	a, b, c, e := o.instances["a"], o.instances["b"], o.instances["c"], o.instances["e"]
	var written int
	if err := o.read(a, "/count/"+keys, &written); err != nil {
		return err
	}
	for _, i := range []*instance{a, b, c, e} {
		if err := o.kill(i); err != nil {
			return err
		}
	}
	for _, i := range []*instance{a, c} {
		if err := os.RemoveAll(o.data(i.name)); err != nil {
			return err
		}
	}
	say("lose a majority", "all are killed, and the directories of a and c removed: b and e are no majority of four")

	kept, err := o.recover(b, e)
	if err != nil {
		return err
	}
	other := e
	if kept == e {
		other = b
	}
	if err := o.start(kept); err != nil {
		return err
	}
	if err := o.ready(kept); err != nil {
		return err
	}
	if err := o.expect(kept, kept.name); err != nil {
		return err
	}

	other.join(kept.addr)
	if err := o.start(other); err != nil {
		return err
	}
	if err := o.rejected(other, coterie.ErrClusterMismatch); err != nil {
		return err
	}
	if err := o.stop(other); err != nil {
		return err
	}
	if err := os.RemoveAll(o.data(other.name)); err != nil {
		return err
	}
	say("lose a majority", "%s leads, alone; %s, with its old directory, is rejected: %q", kept.name, other.name, coterie.ErrClusterMismatch)
	for _, i := range []*instance{a, c, other} {
		i.join(kept.addr)
		if err := o.start(i); err != nil {
			return err
		}
		if err := o.ready(i); err != nil {
			return err
		}
		if err := o.vote(i.name, kept); err != nil {
			return err
		}
	}
	if _, err := ask(o.ctx, a, http.MethodPut, "/keys/recovered", strings.NewReader("yes")); err != nil {
		return err
	}
	for _, i := range []*instance{a, b, c, e} {
		var count int
		if err := o.read(i, "/count/"+keys, &count); err != nil {
			return err
		}
		if count != written {
			return fmt.Errorf("%s has %d of %d writes that were answered", i.name, count, written)
		}
	}
	say("lose a majority", "a, c and %s have joined with empty directories; all %d writes are there", other.name, written)
	return nil
}

// recover inspects the directories of the survivors, and recovers the one that has the newest entries.
// datadir.Recover rejects the others.
func (o *operator) recover(survivors ...*instance) (*instance, error) {
	var found []datadir.Inspection
	for _, i := range survivors {
		in, err := datadir.Inspect(o.ctx, o.data(i.name))
		if err != nil {
			return nil, err
		}
		found = append(found, in)
	}
	for n, i := range survivors {
		recovery, err := datadir.Recover(o.ctx, o.data(i.name), slices.Delete(slices.Clone(found), n, n+1)...)
		if errors.Is(err, datadir.ErrBehind) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(recovery.String()) {
			say("lose a majority", "%s", strings.TrimSuffix(line, "\n"))
		}
		return i, nil
	}
	return nil, errors.New("each directory is behind another one")
}

// join changes the flags of an instance's next process: it joins at an address if its directory is empty,
// and otherwise looks for the other nodes there.
func (i *instance) join(addr string) {
	flags := slices.Clone(i.args[:i.fixed])
	i.args = append(flags, "-join", addr)
}
