// SPDX-License-Identifier: Apache-2.0

// Monitor reports which members of the cluster are up. Each member keeps a lease while it runs, and all of
// them compare the list of leases with the list of members. Consensus notices a lost member sooner; but all
// nodes see the same leases, and a lease stands for a process rather than a connection.
//
// Without flags, three nodes in one process demonstrate and check this. To run three processes on one
// machine, use a terminal for each:
//
//	go run ./examples/monitor -name a -addr 127.0.0.1:7451 -dir /tmp/monitor/a \
//		-founders a=127.0.0.1:7451,b=127.0.0.1:7452,c=127.0.0.1:7453
//	go run ./examples/monitor -name b -addr 127.0.0.1:7452 -dir /tmp/monitor/b \
//		-founders a=127.0.0.1:7451,b=127.0.0.1:7452,c=127.0.0.1:7453
//	go run ./examples/monitor -name c -addr 127.0.0.1:7453 -dir /tmp/monitor/c \
//		-founders a=127.0.0.1:7451,b=127.0.0.1:7452,c=127.0.0.1:7453
//
// Each process prints the members that are down whenever that changes, and its own state every two seconds.
// Kill one, and start it again. Or kill two, and look at the state of the last one.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/examples/internal/process"
	"github.com/coterie-kv/coterie/registry"
)

const (
	up  = "up"            // below it, each running member has a key
	ttl = 2 * time.Second // how long a key outlives its member
)

func main() { process.Main(demo, serve) }

// serve runs one of three nodes until ctx ends. It monitors, and is monitored.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits for the other nodes: all %d at the first start, a majority later\n", cfg.Name, len(cfg.Founders))
	self, err := live(ctx, node)
	if err != nil {
		return err
	}
	defer self.Close()
	go report(ctx, node)
	return monitor(ctx, node, func([]string) {})
}

// live registers this node as up. The registration lasts until its Close or until the node closes, and writes
// only at its beginning and its end.
func live(ctx context.Context, node *coterie.Node) (*registry.Registration, error) {
	self := node.Status()
	return registry.Register(ctx, node, up, registry.Instance{ID: self.Name, Addr: self.Addr}, registry.WithTTL(ttl))
}

// monitor prints the names of the members that are down whenever that changes, and calls alert with them. It
// ends with ctx or the node. Without a quorum it learns nothing new, and is silent: see report.
func monitor(ctx context.Context, node *coterie.Node, alert func(down []string)) error {
	name, last := node.Status().Name, []string{"unknown"}
	for instances, err := range registry.Follow(ctx, node, up) {
		if err != nil {
			return err
		}
		members, err := node.Members(ctx)
		if err != nil {
			return err
		}
		var down []string
		for _, m := range members {
			if !slices.ContainsFunc(instances, func(i registry.Instance) bool { return i.ID == m.Name }) {
				down = append(down, m.Name)
			}
		}
		if slices.Equal(down, last) {
			continue
		}
		if last = down; len(down) == 0 {
			fmt.Printf("%s: all of the %d members are up\n", name, len(members))
		} else {
			fmt.Printf("%s: ALERT: of %d members, these are down: %v\n", name, len(members), down)
		}
		alert(down)
	}
	return nil
}

// report prints the node's own state every two seconds, even without a quorum.
func report(ctx context.Context, node *coterie.Node) {
	for tick := time.Tick(2 * time.Second); ; {
		select {
		case <-tick:
			fmt.Println(describe(node.Status()))
		case <-ctx.Done():
			return
		}
	}
}

// describe returns a node's state in words.
func describe(s coterie.Status) string {
	switch {
	case s.Role == coterie.RoleLeader:
		return fmt.Sprintf("%s leads, reaches %d of %d voters, and has revision %d",
			s.Name, s.VotersReachable, s.Voters, s.Revision)
	case s.Leader == 0:
		return fmt.Sprintf("%s has no leader, and stays at revision %d", s.Name, s.Revision)
	}
	return fmt.Sprintf("%s is a %v, heard its leader %v ago, and has revision %d",
		s.Name, s.Role, s.LastContact.Round(time.Millisecond), s.Revision)
}

// demo closes one of three nodes and opens it again, and checks the alerts of a monitor on another node.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	network := coterie.NewMemoryNetwork()
	founders := []coterie.Founder{{Name: "a", Addr: "a:7400"}, {Name: "b", Addr: "b:7400"}, {Name: "c", Addr: "c:7400"}}
	open := func(p coterie.Founder) (*coterie.Node, error) {
		return coterie.Open(ctx, coterie.Config{Name: p.Name, Addr: p.Addr, Founders: founders, Network: network, InMemory: true})
	}
	nodes := make([]*coterie.Node, len(founders))
	for i, p := range founders {
		node, err := open(p)
		if err != nil {
			return fmt.Errorf("open %s: %w", p.Name, err)
		}
		defer node.Close()
		nodes[i] = node
	}
	for _, node := range nodes {
		if _, err := live(ctx, node); err != nil {
			return fmt.Errorf("live: %w", err)
		}
	}
	alerts := make(chan []string)
	go monitor(ctx, nodes[0], func(down []string) {
		select {
		case alerts <- down:
		case <-ctx.Done():
		}
	})
	if err := expect(ctx, alerts); err != nil {
		return fmt.Errorf("all are up: %w", err)
	}

	victim := 1 // neither the monitor's node nor the leader
	if nodes[victim].Status().Role == coterie.RoleLeader {
		victim = 2
	}
	name := founders[victim].Name
	fmt.Printf("%s vanishes\n", name)
	if err := nodes[victim].Close(); err != nil {
		return fmt.Errorf("close %s: %w", name, err)
	}
	vanished := time.Now()
	if err := reach(ctx, nodes, 2); err != nil {
		return fmt.Errorf("miss %s: %w", name, err)
	}
	if err := expect(ctx, alerts, name); err != nil {
		return fmt.Errorf("miss %s: %w", name, err)
	}
	took := time.Since(vanished)
	fmt.Printf("the alert came %v after it vanished; its lease had a TTL of %v\n", took.Round(time.Millisecond), ttl)
	if took > 2*ttl { // a new leader starts the TTL again
		return fmt.Errorf("miss %s: the alert is too late", name)
	}
	if _, err := nodes[0].Put(ctx, "meanwhile", "work goes on"); err != nil {
		return fmt.Errorf("write without %s: %w", name, err)
	}

	fmt.Printf("%s comes back, and has forgotten everything\n", name)
	again, err := open(founders[victim])
	if err != nil {
		return fmt.Errorf("open %s again: %w", name, err)
	}
	defer again.Close()
	nodes[victim] = again
	if _, err := live(ctx, again); err != nil {
		return fmt.Errorf("open %s again: %w", name, err)
	}
	if err := errors.Join(expect(ctx, alerts), reach(ctx, nodes, 3), again.Ready(ctx)); err != nil {
		return fmt.Errorf("%s comes back: %w", name, err)
	}
	read, err := again.Get(ctx, "meanwhile", coterie.WithSerializable())
	if err != nil || len(read.KVs) != 1 {
		return fmt.Errorf("%s comes back: it does not know what was written meanwhile: %v", name, err)
	}
	fmt.Println(describe(again.Status()))
	return nil
}

// expect waits for the next alert, and checks the names in it.
func expect(ctx context.Context, alerts <-chan []string, want ...string) error {
	select {
	case down := <-alerts:
		if !slices.Equal(down, want) {
			return fmt.Errorf("the monitor reports that %v are down, not %v", down, want)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reach waits until one of the nodes leads and reaches that number of voters.
func reach(ctx context.Context, nodes []*coterie.Node, voters int) error {
	for {
		for _, node := range nodes {
			if s := node.Status(); s.Role == coterie.RoleLeader && s.VotersReachable == voters {
				fmt.Println(describe(s))
				return nil
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
