// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

// steps build on each other, in this order.
var steps = []struct {
	name string
	run  func(o *operator) error
}{
	{"found a cluster", found},
	{"join", join},
	{"rolling restart", restartAll},
	{"back up", backUp},
	{"leave", leave},
	{"lose a disk", loseDisk},
	{"join without vote", joinWithoutVote},
	{"compare", compare},
	{"lose a majority", loseMajority},
}

// found starts three founders. Each gets the same list of all three, and needs nothing else.
func found(o *operator) error {
	var founders []string
	for _, name := range []string{"a", "b", "c"} {
		i, err := o.define(name)
		if err != nil {
			return err
		}
		founders = append(founders, name+"="+i.addr)
	}
	o.founders = strings.Join(founders, ",")
	begin := time.Now()
	for _, name := range []string{"a", "b", "c"} {
		i := o.instances[name]
		i.args = append(i.args, "-founders", o.founders)
		if err := o.start(i); err != nil {
			return err
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := o.ready(o.instances[name]); err != nil {
			return err
		}
		o.client.add(o.instances[name])
	}
	if err := o.expect(o.instances["a"], "a b c"); err != nil {
		return err
	}
	leader, err := o.leader(o.instances["a"])
	if err != nil {
		return err
	}
	go o.client.run(o.ctx)
	say("found a cluster", "a, b and c are ready %v after their start, and %s leads; a client begins to write",
		since(begin), leader.name)
	return nil
}

// join starts a fourth node, which knows the address of one member. It is a member as soon as the leader has
// it on record, and has a vote as soon as it has caught up. The other nodes need no new configuration.
func join(o *operator) error {
	d, err := o.define("d", "-join", o.instances["a"].addr)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := o.start(d); err != nil {
		return err
	}
	if err := o.ready(d); err != nil {
		return err
	}
	say("join", "d is ready after %v: it has all data of the others", since(begin))
	if err := o.vote("d", o.instances["a"]); err != nil {
		return err
	}
	if err := o.expect(d, "a b c d"); err != nil {
		return err
	}
	o.client.add(d)
	say("join", "d has a vote after %v", since(begin))
	return nil
}

// restartAll restarts all instances one after the other, as for a new version, while the client writes. It
// waits until each one is ready before it restarts the next, so there is always a majority. The leader hands
// over before it stops.
func restartAll(o *operator) error {
	before, _, err := o.client.report()
	if err != nil {
		return err
	}
	begin := time.Now()
	for _, name := range []string{"a", "b", "c", "d"} {
		i := o.instances[name]
		o.client.remove(i) // as a load balancer does before a restart
		if err := o.stop(i); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		if err := o.start(i); err != nil {
			return err
		}
		if err := o.ready(i); err != nil {
			return err
		}
		o.client.add(i)
	}
	after, slowest, err := o.client.report()
	if err != nil {
		return err
	}
	if after == before {
		return errors.New("the client has written nothing meanwhile")
	}
	say("rolling restart", "four restarts in %v; %d writes meanwhile, none failed, the slowest took %v",
		since(begin), after-before, slowest)
	return nil
}

// backUp takes a backup while the client writes, and tests it: it begins a cluster of one with the backup,
// in this process. That has everything that was answered before the request for the backup.
func backUp(o *operator) error {
	before, _, err := o.client.report()
	if err != nil {
		return err
	}
	backup, err := ask(o.ctx, o.instances["b"], http.MethodGet, "/backup", nil)
	if err != nil {
		return err
	}
	found, err := datadir.InspectBackup(o.ctx, bytes.NewReader(backup))
	if err != nil {
		return err
	}
	say("back up", "%d bytes with %d keys, of revision %d, while the client writes", len(backup), found.Keys, found.Revision)

	cfg := coterie.Config{Dir: o.data("restored"), Name: "restored"}
	if err := coterie.RestoreBackup(o.ctx, bytes.NewReader(backup), cfg); err != nil {
		return fmt.Errorf("restore it: %w", err)
	}
	node, err := coterie.Open(o.ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	restored, err := node.Get(o.ctx, keys, coterie.WithPrefix(), coterie.WithCountOnly())
	if err != nil {
		return err
	}
	if restored.Count < int64(before) || restored.Count != int64(found.Keys) {
		return fmt.Errorf("%d writes were answered before, and the restored cluster has %d keys", before, restored.Count)
	}
	say("back up", "restored to a cluster of one, it has the %d writes that were answered before", before)
	return nil
}

// leave takes an instance out of the cluster for good. Its process ends by itself, with 0.
func leave(o *operator) error {
	d := o.instances["d"]
	o.client.remove(d)
	if err := o.do(d, http.MethodPost, "/leave"); err != nil {
		return err
	}
	if err := o.wait(d); err != nil {
		return fmt.Errorf("its process: %w", err)
	}
	if err := o.expect(o.instances["a"], "a b c"); err != nil {
		return err
	}
	say("leave", "d has left and ended; two of three make a majority again")
	return nil
}

// loseDisk kills the leader and removes its directory. When the node is started again, it does not know its
// own votes and acknowledged writes. So the cluster rejects it until an operator removes the member.
func loseDisk(o *operator) error {
	lost, err := o.leader(o.instances["a"])
	if err != nil {
		return err
	}
	other := o.instances["a"]
	if other == lost {
		other = o.instances["b"]
	}
	o.client.remove(lost) // calls that are under way would fail with the process
	begin := time.Now()
	if err := o.kill(lost); err != nil {
		return err
	}
	if err := os.RemoveAll(o.data(lost.name)); err != nil {
		return err
	}
	next, err := o.leader(other)
	if err != nil {
		return err
	}
	if next == lost {
		return fmt.Errorf("%s still leads", lost.name)
	}
	say("lose a disk", "%s, which led, is killed and its directory removed; %s leads %v later",
		lost.name, next.name, since(begin))

	if err := o.start(lost); err != nil {
		return err
	}
	if err := o.rejected(lost, coterie.ErrDirMismatch); err != nil {
		return err
	}
	if err := o.expect(other, "a b c"); err != nil {
		return err
	}
	say("lose a disk", "%s is started with an empty directory, and rejected: %q", lost.name, coterie.ErrDirMismatch)

	if err := o.do(other, http.MethodDelete, "/members/"+lost.name); err != nil {
		return err
	}
	if err := o.ready(lost); err != nil {
		return err
	}
	if err := o.vote(lost.name, other); err != nil {
		return err
	}
	if err := o.expect(lost, "a b c"); err != nil {
		return err
	}
	o.client.add(lost)
	_, slowest, err := o.client.report()
	if err != nil {
		return err
	}
	say("lose a disk", "%s is removed, joins again by itself, and has a vote; no write failed, the slowest took %v",
		lost.name, slowest)
	return nil
}

// joinWithoutVote adds a node without a vote. It serves reads and writes like any other node, and does not
// count for majorities. Then the node is promoted.
func joinWithoutVote(o *operator) error {
	a := o.instances["a"]
	e, err := o.define("e", "-join", a.addr, "-nonvoter")
	if err != nil {
		return err
	}
	if err := o.start(e); err != nil {
		return err
	}
	if err := o.ready(e); err != nil {
		return err
	}
	if err := o.expect(a, "a b c (e)"); err != nil {
		return err
	}
	if _, err := ask(o.ctx, e, http.MethodPut, "/keys/e", strings.NewReader("here")); err != nil {
		return err
	}
	o.client.add(e)
	say("join without vote", "e serves, and has no vote")
	if err := o.do(a, http.MethodPost, "/members/e/promote"); err != nil {
		return err
	}
	if err := o.expect(e, "a b c e"); err != nil {
		return err
	}
	say("join without vote", "e is promoted, and has a vote")
	return nil
}

// compare ends the client, and checks that every node has every answered write, and that all nodes are equal
// to the last byte.
func compare(o *operator) error {
	written, err := o.client.stop()
	if err != nil {
		return err
	}
	var first coterie.HashResponse
	for _, name := range []string{"a", "b", "c", "e"} {
		i := o.instances[name]
		var count int
		if err := o.read(i, "/count/"+keys, &count); err != nil {
			return err
		}
		if count != written {
			return fmt.Errorf("%s has %d of %d writes that were answered", name, count, written)
		}
		var hash coterie.HashResponse
		if err := o.read(i, fmt.Sprintf("/hash?rev=%d", first.HashRevision), &hash); err != nil {
			return err
		}
		if first.HashRevision == 0 {
			first = hash
		}
		if hash.Hash != first.Hash || hash.HashRevision != first.HashRevision {
			return fmt.Errorf("%s differs from a at revision %d", name, first.HashRevision)
		}
	}
	say("compare", "all %d writes are on a, b, c and e, which are equal at revision %d", written, first.HashRevision)
	return nil
}
