// SPDX-License-Identifier: Apache-2.0

// Package certs is the subcommand "coteried certs": it makes a CA, and certificates of members and clients, without another
// program. They are for operators that have no CA yet.
package certs

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/coterie-kv/coterie/etcdapi/internal/subcommand"
)

const description = `Makes certificates in a directory, each with its key in NAME-key.pem:

  ca.pem      the CA. If it exists with its key, it issues the new certificates.
  NAME.pem    for NAME=HOST,HOST: a member. The hosts are all IP addresses and names by which clients and members reach
              it. It is for --cert-file and for --peer-cert-file, and for etcdctl.
  NAME.pem    for NAME alone: a client. With --client-cert-auth, NAME is the user of its calls.

For example: coteried certs --dir certs node1=10.0.0.1,127.0.0.1 node2=10.0.0.2,127.0.0.1 root

No existing file is replaced.`

// Run runs the subcommand, and returns the exit code.
func Run(_ context.Context, args []string, stdout, stderr io.Writer) int {
	return subcommand.Exit(stderr, run(args, stdout))
}

func run(args []string, stdout io.Writer) error {
	var dir string
	var validity time.Duration
	set := subcommand.NewFlags("certs [flags] NAME=HOST,HOST NAME", description)
	set.StringVar(&dir, "dir", "certs", "the `directory`")
	set.DurationVar(&validity, "validity", 10*365*24*time.Hour, "how long the certificates are valid")
	names, err := subcommand.Parse(set, args, stdout)
	switch {
	case err != nil:
		return err
	case len(names) == 0:
		return subcommand.Usage("certs requires a NAME=HOST,HOST for each member, and a NAME for each client")
	case validity < time.Minute:
		return subcommand.Usage("--validity %v is too short", validity)
	}
	subjects, err := parseSubjects(names)
	if err != nil {
		return err
	}
	authority, err := openAuthority(dir, validity)
	if err != nil {
		return err
	}
	for _, s := range subjects {
		if err := authority.issue(s, validity); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s: %s\n", filepath.Join(dir, s.name+".pem"), s)
	}
	return nil
}

// A subject is the owner of a certificate: a member with hosts, or a client without.
type subject struct {
	name  string
	hosts []string
}

func (s subject) String() string {
	if len(s.hosts) == 0 {
		return "a client"
	}
	return "a member with the hosts " + strings.Join(s.hosts, ", ")
}

func parseSubjects(args []string) (all []subject, err error) {
	seen := map[string]bool{authorityName: true}
	for _, a := range args {
		name, hosts, member := strings.Cut(a, "=")
		s := subject{name: name}
		if member {
			s.hosts = strings.Split(hosts, ",")
		}
		switch {
		case name == "" || name != filepath.Base(name) || strings.HasSuffix(name, keySuffix):
			return nil, subcommand.Usage("%q is not the name of a file of a certificate", name)
		case seen[name]:
			return nil, subcommand.Usage("the name %s is given twice, or is that of the CA", name)
		}
		for _, h := range s.hosts {
			if h == "" || strings.ContainsAny(h, "/ ") {
				return nil, subcommand.Usage("%s: %q is neither an IP address nor the name of a host", name, h)
			}
		}
		seen[name] = true
		all = append(all, s)
	}
	return all, nil
}
