// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coterie-kv/coterie"
)

// An operator starts and ends instances, and calls them over HTTP. Every method gives up when ctx ends.
type operator struct {
	ctx       context.Context
	dir       string // contains all files of the demonstration
	authority *authority
	founders  string // the value of -founders
	instances map[string]*instance
	client    *client // writes during all steps
}

// An instance is one member of the service. Its successive processes share the name, the addresses and the
// directory.
type instance struct {
	name, addr, http string
	args             []string
	fixed            int // the number of args that never change
	process          *exec.Cmd
	exited           chan struct{} // closed when the process has ended
	outcome          error         // of the process; set before exited is closed
}

// define makes an instance, with its addresses and its certificate.
func (o *operator) define(name string, args ...string) (*instance, error) {
	i := &instance{name: name}
	var err error
	if i.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	if i.http, err = freeAddr(); err != nil {
		return nil, err
	}
	certificates := filepath.Join(o.dir, name+".certificates")
	if err := o.authority.issue(name, certificates); err != nil {
		return nil, err
	}
	i.args = []string{
		"-name", name, "-addr", i.addr, "-http", i.http, "-dir", o.data(name), "-certificates", certificates, "-for", "2m",
	}
	i.fixed = len(i.args)
	i.args = append(i.args, args...)
	o.instances[name] = i
	return i, nil
}

// data returns the directory of an instance's node.
func (o *operator) data(name string) string { return filepath.Join(o.dir, name) }

// start starts an instance's process, which is this program with flags.
func (o *operator) start(i *instance) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(o.logFile(i.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own copy
	i.process = exec.Command(program, i.args...)
	i.process.Stdout, i.process.Stderr = log, log
	if err := i.process.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	i.exited = exited
	go func() {
		i.outcome = i.process.Wait()
		close(exited)
	}()
	return nil
}

// wait waits until a process has ended, and returns its outcome.
func (o *operator) wait(i *instance) error {
	select {
	case <-i.exited:
		return i.outcome
	case <-o.ctx.Done():
		return fmt.Errorf("%s does not end: %w", i.name, context.Cause(o.ctx))
	}
}

// stop ends a process as an orchestrator does: with SIGTERM, and then it waits.
func (o *operator) stop(i *instance) error {
	if err := i.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return o.wait(i)
}

// kill ends a process as a crash does.
func (o *operator) kill(i *instance) error {
	if err := i.process.Process.Kill(); err != nil {
		return err
	}
	_ = o.wait(i) // the error says that it was killed
	return context.Cause(o.ctx)
}

// killAll ends all processes that still run, by their process IDs.
func (o *operator) killAll() {
	for _, i := range o.instances {
		if i.process != nil && i.process.Process != nil {
			_ = i.process.Process.Kill() // it may have ended
			<-i.exited
		}
	}
}

// logFile returns the file that has an instance's log.
func (o *operator) logFile(name string) string { return filepath.Join(o.dir, name+".log") }

// printLogs prints the last lines of each instance's log.
func (o *operator) printLogs(to io.Writer) {
	const most = 20
	for _, name := range slices.Sorted(maps.Keys(o.instances)) {
		text, _ := os.ReadFile(o.logFile(name)) // it may never have been started
		lines := strings.SplitAfter(string(text), "\n")
		fmt.Fprintf(to, "-- %s has logged:\n%s", name, strings.Join(lines[max(len(lines)-most, 0):], ""))
	}
}

// ready waits until an instance's /readyz succeeds. It asks again while that fails, or while the instance
// does not listen yet.
func (o *operator) ready(i *instance) error {
	return o.until(i.name+" to be ready", func() (bool, error) {
		_, err := ask(o.ctx, i, http.MethodGet, "/readyz", nil)
		return err == nil, nil
	})
}

// members returns the members by name, as an instance reports them.
func (o *operator) members(i *instance) (map[string]coterie.Member, error) {
	var all []coterie.Member
	if err := o.read(i, "/members", &all); err != nil {
		return nil, err
	}
	members := map[string]coterie.Member{}
	for _, m := range all {
		members[m.Name] = m
	}
	return members, nil
}

// vote waits until another instance reports that a member has a vote.
func (o *operator) vote(name string, from *instance) error {
	return o.until(name+" to have a vote", func() (bool, error) {
		members, err := o.members(from)
		return members[name].Voter, err
	})
}

// rejected waits until an instance reports that it is not ready for the given reason.
func (o *operator) rejected(i *instance, reason error) error {
	return o.until(i.name+" to be rejected", func() (bool, error) {
		_, err := ask(o.ctx, i, http.MethodGet, "/ready", nil)
		if err == nil {
			return false, fmt.Errorf("%s is ready", i.name)
		}
		return strings.Contains(err.Error(), reason.Error()), nil
	})
}

// expect checks the members: their names in alphabetical order, those without a vote in brackets.
func (o *operator) expect(from *instance, want string) error {
	members, err := o.members(from)
	if err != nil {
		return err
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !members[name].Voter {
			name = "(" + name + ")"
		}
		all = append(all, name)
	}
	if got := strings.Join(all, " "); got != want {
		return fmt.Errorf("the members are %s, not %s", got, want)
	}
	return nil
}

// leader waits until an instance leads, and returns it. The answer comes from the leader, so it never names
// an instance that is down.
func (o *operator) leader(from *instance) (leader *instance, err error) {
	err = o.until("a leader", func() (bool, error) {
		members, err := o.members(from)
		for name, m := range members {
			if m.Leader {
				leader = o.instances[name]
			}
		}
		return leader != nil, err
	})
	return leader, err
}

// read gets a path of an instance, and decodes the answer, which is JSON.
func (o *operator) read(i *instance, path string, into any) error {
	body, err := ask(o.ctx, i, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// do makes a call to an instance without reading its answer.
func (o *operator) do(i *instance, method, path string) error {
	_, err := ask(o.ctx, i, method, path, nil)
	return err
}

// until waits for a condition, which it checks again and again.
func (o *operator) until(condition string, holds func() (bool, error)) error {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-look.C:
		case <-o.ctx.Done():
			return fmt.Errorf("waiting for %s: %w", condition, context.Cause(o.ctx))
		}
	}
}

// ask makes one call to an instance and returns the body of the answer. If the status is not 200, it returns
// an error with the text of the answer.
func ask(ctx context.Context, i *instance, method, path string, body io.Reader) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+i.http+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s of %s: %s", method, path, i.name, strings.TrimSpace(string(text)))
	}
	return text, nil
}

// freeAddr returns an address on loopback that is free now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
