// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"flag"
	"fmt"

	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

// Errors of Parse, as etcd has them.
var (
	// ErrAdvertiseClientURLs: the member listens at other addresses than the default but advertises the default, so
	// that clients on other machines would not find it.
	ErrAdvertiseClientURLs = errors.New("--advertise-client-urls is required when --listen-client-urls is set explicitly")
	// ErrBootstrapFlags: --initial-cluster and --discovery-srv both name the members.
	ErrBootstrapFlags = errors.New("multiple discovery or bootstrap flags are set: choose one of --initial-cluster or --discovery-srv")
)

// Parse reads the settings of a daemon: from the command line without the name of the program, and from the environment.
// If one of them names a file, it reads them from there alone. The settings are complete and consistent, except for those
// about files and other machines.
//
// Errors: flag.ErrHelp; a RefusedError for each flag of etcd that coteried does not have; a ConflictError; ErrAdvertiseClientURLs;
// ErrBootstrapFlags; others about a flag that is unknown or has an invalid value, which they name.
func Parse(args, environ []string) (*Settings, error) {
	s := &Settings{}
	f := newFlags(s)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a valid flag", f.Arg(0))
	}
	if s.Version {
		return s, nil
	}
	if s.ConfigFile == "" {
		s.ConfigFile = lookup(environ, variable("config-file"))
	}
	var err error
	if file := s.ConfigFile; file != "" {
		s = &Settings{} // the file replaces all flags
		f = newFlags(s)
		s.ConfigFile = file
		s.Warnings, err = setFromFile(f, s, file)
	} else {
		s.Warnings, err = setFromEnvironment(f, environ)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.refusals...); err != nil {
		return nil, err
	}
	s.given = map[string]bool{}
	f.Visit(func(one *flag.Flag) { s.given[one.Name] = true })
	s.complete()
	return s, s.validate()
}

// complete sets the settings with defaults that depend on other settings.
func (s *Settings) complete() {
	if s.DataDir == "" {
		s.DataDir = s.Name + ".etcd"
	}
	if s.ConfigFile == "" && s.Given("listen-client-urls") && !s.Given("advertise-client-urls") {
		s.Listen.AdvertiseClient = nil
	}
	if !s.Given("initial-cluster") {
		s.Cluster.Members = ""
	}
	if s.Cluster.State == "" {
		s.Cluster.State = bootstrap.StateNew
	}
	s.advertiseDefaultHost()
}
